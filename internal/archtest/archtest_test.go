package archtest

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestModule holds the whole module to the rules.
func TestModule(t *testing.T) {
	found, err := Check(os.DirFS(filepath.Join("..", "..")))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// TestModuleIsRead makes sure that TestModule looks at the packages that it is
// about: a rule over an empty tree always holds.
func TestModuleIsRead(t *testing.T) {
	tree, err := load(os.DirFS(filepath.Join("..", "..")))
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/gridloom/gridloom"; tree.module != want {
		t.Errorf("module %q, want %q", tree.module, want)
	}
	seen := map[string]int{}
	for _, p := range tree.pkgs {
		seen[p.dir] = len(p.files)
	}
	for dir := range layers {
		if seen[dir] == 0 {
			t.Errorf("%s is in the table of layers and has no Go files", dir)
		}
	}
}

// TestRules runs Check over the small modules in testdata. The text above an
// archive's files is what Check must find there, no more and no less, one
// finding a line. good.txtar has none. A line "@500 text" stands for 500 times
// the text.
func TestRules(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	fired := map[string]bool{}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fsys := fstest.MapFS{"go.mod": {Data: []byte("module example.org/m\n\ngo 1.26.0\n")}}
			for _, f := range archive.Files {
				fsys[f.Name] = &fstest.MapFile{Data: repeats.ReplaceAllFunc(f.Data, repeat)}
			}
			found, err := Check(fsys)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, f := range found {
				got = append(got, f.String())
				fired[f.Rule] = true
			}
			want := slices.DeleteFunc(strings.Split(string(archive.Comment), "\n"), func(line string) bool {
				return line == "" || strings.HasPrefix(line, "#")
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
	for _, r := range rules {
		if !fired[r.name] {
			t.Errorf("no archive breaks the rule %q", r.name)
		}
	}
}

var repeats = regexp.MustCompile(`(?m)^@(\d+) (.*\n)`)

func repeat(line []byte) []byte {
	part := repeats.FindSubmatch(line)
	n, _ := strconv.Atoi(string(part[1]))
	return bytes.Repeat(part[2], n)
}

// TestUnreadable: what can't be read is an error, never a silent pass.
func TestUnreadable(t *testing.T) {
	gomod := &fstest.MapFile{Data: []byte("module example.org/m\n")}
	for name, fsys := range map[string]fstest.MapFS{
		"no go.mod":      {"a.go": {Data: []byte("package a\n")}},
		"no module line": {"go.mod": {Data: []byte("go 1.26.0\n")}},
		"syntax error":   {"go.mod": gomod, "a.go": {Data: []byte("package a\nfunc {\n")}},
		"bad constraint": {"go.mod": gomod, "a.go": {Data: []byte("//go:build a &&\n\npackage a\n")}},
	} {
		if _, err := Check(fsys); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
