package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestCheckMode(t *testing.T) {
	const root, us, them = 0, 1000, 2000
	for _, c := range []struct {
		mode               fs.FileMode
		owner, group, self int
		ok                 bool
	}{
		{0o600, us, us, us, true},
		{0o400, us, us, us, true},
		{0o400, root, root, us, true}, // systemd
		{0o440, root, root, us, true}, // systemd, by an access control list
		{0o440, root, us, us, true},   // Kubernetes' fsGroup
		{0o640, root, them, us, true}, // by its supplementary group
		{0o640, root, root, root, true},
		{0o640, root, us, root, false},
		{0o640, us, us, us, false},
		{0o660, us, root, us, false},
		{0o604, us, us, us, false},
		{0o644, root, root, us, false},
		{0o602, us, us, us, false},
		{0o644, us, us, us, false},
		{0o777, root, root, root, false},
	} {
		err := checkMode("key", c.mode, c.owner, c.group, c.self)
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), fmt.Sprintf("%04o", c.mode)) || !strings.Contains(err.Error(), "key")) {
			t.Errorf("%04o of %d:%d for %d: %v", c.mode, c.owner, c.group, c.self, err)
		}
	}
}

func TestReadPrivate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	write(t, name, []byte("secret"))
	if b, err := ReadPrivate(name, 6); err != nil || string(b) != "secret" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadPrivate(name, 5); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("too large: %v", err)
	}
	if _, err := ReadPrivate(name+"x", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	if runtime.GOOS == "windows" {
		return // where modes say nothing
	}
	link := name + ".link"
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, link} {
		if _, err := ReadPrivate(n, 6); !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), n+" ") || !strings.Contains(err.Error(), "0644") {
			t.Errorf("%s: %v", n, err)
		}
	}
}
