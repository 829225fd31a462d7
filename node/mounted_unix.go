//go:build unix

package node

import (
	"os"
	"path/filepath"
	"syscall"
)

// mountPoint tells whether path is on another file system than its parent. One
// that can't be looked at is on none.
func mountPoint(path string) bool {
	here, err := os.Stat(path)
	if err != nil {
		return false
	}
	above, err := os.Stat(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return false
	}
	a, aOK := here.Sys().(*syscall.Stat_t)
	b, bOK := above.Sys().(*syscall.Stat_t)
	return aOK && bOK && a.Dev != b.Dev
}
