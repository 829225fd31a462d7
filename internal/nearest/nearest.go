// Package nearest finds the word that somebody may have meant who wrote one that
// there isn't.
//
// Words are compared by the fewest bytes that have to be put in, left out or changed
// (V. I. Levenshtein, 1966). The case of letters doesn't matter, and dots,
// underscores and hyphens are one: settings are spelt with each of them. It takes
// time proportional to the product of the lengths, so of a word that somebody made
// up no more than 64 bytes are looked at.
package nearest

import "strings"

// most is how many bytes of a word are looked at.
const most = 64

// Word is the one of some words that takes the fewest changes to make it of word,
// and how many these are; of equals it is the first. "" where there are none.
func Word(word string, of []string) (best string, changes int) {
	word = fold(word[:min(len(word), most)])
	for i, candidate := range of {
		if n := distance(word, fold(candidate)); i == 0 || n < changes {
			best, changes = candidate, n
		}
	}
	return best, changes
}

func fold(word string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(strings.ToLower(word))
}

// distance keeps one row of the table of distances between the beginnings of both.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from a's beginning so far to each of b's
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := corner
			if a[i] != b[j] {
				changed++
			}
			corner = row[j+1]
			row[j+1] = min(changed, corner+1, row[j]+1)
		}
	}
	return row[len(b)]
}
