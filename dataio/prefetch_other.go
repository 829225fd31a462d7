//go:build !linux

package dataio

import (
	"io/fs"
	"os"
)

// askNowBytes is 0, as there is no way to read only what is in memory.
const askNowBytes = 0

func readNow(*os.File, []byte, int64) bool { return false }

// openNow opens nothing, as there is no way to open only what is in memory.
func openNow(*os.File, string) *os.File { return nil }

// advise leaves it to the system to read ahead.
func advise(*os.File, int64, int64) {}

// cached doesn't know what is in memory.
func cached(*os.File, int64, int64) bool { return false }

// pages doesn't, either.
type pages struct{}

func (*pages) missing(*os.File, int64, int64, int64) (from, to int64, known bool) {
	return 0, 0, false
}
func (*pages) close() {}

// marks is false, as what tells that a file is what it was differs between the
// systems: none is kept open.
const marks = false

type fileMark struct{}

func markFrom(fs.FileInfo) fileMark { return fileMark{} }

func markOf(*os.File) (fileMark, bool) { return fileMark{}, false }
