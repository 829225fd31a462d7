// Package deploy_test holds the files in this folder to what they promise. It
// reads them; what other programs have to say is in systemd_test.go, behind
// the build tag real.
package deploy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var variable = regexp.MustCompile(`\bGRIDLOOM_[A-Z0-9_]+`)

// TestVariables: each variable that a file here mentions is a setting, by the
// document that is generated from the settings themselves.
func TestVariables(t *testing.T) {
	documented := map[string]bool{}
	for _, name := range variable.FindAllString(read(t, "../docs/configuration.md"), -1) {
		documented[name] = true
	}
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".go") {
			return err
		}
		for _, name := range variable.FindAllString(read(t, path), -1) {
			seen++
			if !documented[name] {
				t.Errorf("%s: docs/configuration.md knows no %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("found %d variables: this test no longer reads the right files", seen)
	}
}

// TestNoSecretsInEnvironment: an environment file is readable by everyone and
// its values show in /proc.
func TestNoSecretsInEnvironment(t *testing.T) {
	secret := regexp.MustCompile(`^#?GRIDLOOM_(KEY|MESH_SECRET)=`)
	for line := range strings.Lines(read(t, "gridloom.env")) {
		if secret.MatchString(line) {
			t.Errorf("gridloom.env has a secret: %s", strings.TrimSpace(line))
		}
	}
}

// TestDockerfile checks what can be seen without building the image.
func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	if !strings.Contains(text, "Not built in CI") {
		t.Error("the Dockerfile does not say that it is not built in CI")
	}
	var stages []string
	last := map[string][]string{} // instructions of the last stage
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || word[0] == '#' {
			continue
		}
		if word == "FROM" {
			stages = append(stages, rest)
			clear(last)
		}
		last[word] = append(last[word], rest)
		if word == "COPY" && !strings.HasPrefix(rest, "--from=") {
			fields := strings.Fields(rest)
			for _, source := range fields[:len(fields)-1] {
				if _, err := os.Stat(filepath.Join("..", source)); err != nil {
					t.Errorf("COPY %s: %v", rest, err)
				}
			}
		}
		if _, pkg, ok := strings.Cut(line, " ./cmd/"); word == "RUN" && ok {
			if _, err := os.Stat(filepath.Join("..", "cmd", strings.TrimSpace(pkg))); err != nil {
				t.Errorf("builds what is not there: %v", err)
			}
		}
	}
	if len(stages) != 2 {
		t.Fatalf("stages %q, want one that builds and one that runs", stages)
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	if !strings.HasPrefix(stages[0], "golang:"+goVersion+"-") {
		t.Errorf("built with %q, go.mod says %s", stages[0], goVersion)
	}
	if !strings.Contains(stages[1], "/distroless/static") || !strings.HasSuffix(stages[1], ":nonroot") {
		t.Errorf("runs on %q, want distroless static, nonroot", stages[1])
	}
	want := map[string][]string{
		"USER":       {"65532:65532"}, // by number, so that Kubernetes can see it is not root
		"ENTRYPOINT": {`["/usr/bin/gridloom"]`},
		"CMD":        {`["serve"]`},
		"VOLUME":     {"/data"},
		"ENV":        {"GRIDLOOM_DATA=/data"},
	}
	for word, lines := range want {
		if !slices.Equal(last[word], lines) {
			t.Errorf("%s %q, want %q", word, last[word], lines)
		}
	}
}
