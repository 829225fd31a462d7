package grid_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmeProgram builds the program in README.md, runs it as two processes
// and waits until they have talked.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(readme), "```go\n")
	program, _, ended := strings.Cut(program, "```")
	if !found || !ended {
		t.Fatal("README.md has no Go program")
	}
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "hello")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addrs := [2]string{freeAddr(t), freeAddr(t)}
	for i := range addrs {
		local, peer := addrs[i], addrs[1-i]
		cmd := exec.CommandContext(t.Context(), binary, local, peer)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		if i == 0 {
			continue // its peer is not up yet
		}
		want := "hello http://" + local + ", this is http://" + peer + " <nil>"
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == want {
				return
			}
		}
		t.Error("the processes have not talked")
	}
}

func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
