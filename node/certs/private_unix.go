//go:build unix

package certs

import (
	"io/fs"
	"os"
	"syscall"
)

func checkOwner(name string, info fs.FileInfo) error {
	owner, group := os.Geteuid(), -1 // the stricter rule, where the system doesn't say
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner, group = int(st.Uid), int(st.Gid)
	}
	return checkMode(name, info.Mode(), owner, group, os.Geteuid())
}
