package nearest

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWord(t *testing.T) {
	of := []string{"PutObject", "GetObject", "ListObjects", "grpc.addr", "grpc-cert"}
	for word, want := range map[string]struct {
		best    string
		changes int
	}{
		"GetObject":               {"GetObject", 0},
		"getobjekt":               {"GetObject", 1},
		"Getbject":                {"GetObject", 1},
		"grpc_addr":               {"grpc.addr", 0},
		"grpc-cret":               {"grpc-cert", 2},
		"":                        {"PutObject", 9},
		strings.Repeat("x", 1000): {"ListObjects", 64},
	} {
		if best, changes := Word(word, of); best != want.best && len(word) < most || changes != want.changes || best == "" {
			t.Errorf("%.20q: %s by %d changes, want %s by %d", word, best, changes, want.best, want.changes)
		}
	}
	if best, changes := Word("x", nil); best != "" || changes != 0 {
		t.Errorf("of none %q by %d changes", best, changes)
	}
}
