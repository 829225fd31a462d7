//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestCongestion has a row run in a namespace with a congestion control of its own,
// and the machine's stays what it is.
func TestCongestion(t *testing.T) {
	before, err := os.ReadFile(congestionFile)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-rows", "get-4KiB-1", "-runs", "1", "-time", "20ms", "-warm", "10ms", "-files", "1", "-dir", t.TempDir()}
	var out strings.Builder
	err = run(t.Context(), append(args, "-congestion", "reno"), "", &out)
	if os.Getuid() != 0 && err != nil && strings.Contains(err.Error(), "root") {
		t.Skip(err)
	}
	if err != nil || !strings.Contains(out.String(), "congestion control reno") || !strings.Contains(out.String(), "| `get-4KiB-1` | gridloom |") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	var exit *exec.ExitError
	if err := run(t.Context(), append(args, "-congestion", "none"), "", io.Discard); !errors.As(err, &exit) {
		t.Errorf("a congestion control that there isn't: %v", err)
	}
	own, err := networkNamespace()
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), append(args, "-congestion", "reno"), own, io.Discard); err == nil {
		t.Error("it runs in the machine's own namespace")
	}
	if after, err := os.ReadFile(congestionFile); err != nil || string(after) != string(before) {
		t.Errorf("the machine has %q (%v), and had %q", after, err, before)
	}
}
