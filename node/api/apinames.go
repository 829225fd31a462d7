package api

import (
	"slices"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
)

// httpAPIs are the APIs of the HTTP listener that are no call: how requests count
// that are for something else, or that never came as far as an API.
var httpAPIs = []string{
	"GetMetrics", "GetOpenAPI", "Profile", "Live", "Ready", "Preflight", "Unauthenticated", "Limited", "other",
}

// Names are the APIs that a request can be measured as, by HTTP or gRPC.
func Names() []string {
	names := slices.Clone(httpAPIs)
	for method := range permissions() {
		names = append(names, apiOf(method))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkAPIs refuses a name that no call will ever have: who filters by it would wait
// for nothing. What an older node has besides can't be asked for by way of this one.
func checkAPIs(names []string) error {
	known := Names()
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fault.New(fault.InvalidArgument, "api", "%q is no API; the nearest is %s. There are the calls by their names, and by HTTP %s",
				name, nearest(name, known), strings.Join(httpAPIs, ", "))
		}
	}
	return nil
}

// nearest is the one of some words that takes the fewest changes of letters, the
// case of which doesn't matter. Of equals it is the first.
func nearest(word string, of []string) string {
	const most = 64 // letters looked at, of a word that somebody made up
	word = strings.ToLower(word[:min(len(word), most)])
	best, fewest := "", 0
	for _, candidate := range of {
		if n := distance(word, strings.ToLower(candidate)); best == "" || n < fewest {
			best, fewest = candidate, n
		}
	}
	return best
}

// distance is how many letters have to be put in, left out or changed (Levenshtein).
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
