//go:build real

//real:needs strace

package dataio_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

const injectedVariable = "GRIDLOOM_TEST_INJECTED_DRIVE"

// TestInjected has the kernel's calls fail for a process that puts and reads, by
// strace(1), below everything that is ours. A process without trouble looks at
// what is left: all that was acknowledged, and nothing of what was refused.
func TestInjected(t *testing.T) {
	if dir := os.Getenv(injectedVariable); dir != "" {
		putInjected(t, dir)
		return
	}
	for _, c := range []struct {
		inject  string
		refused string // why the last put is, "" if none is
		most    int    // of 40 that may be acknowledged
		read    bool   // reading fails
	}{
		{inject: "fdatasync:error=EIO", refused: "suspect"},
		{inject: "fdatasync:error=EIO:when=3+", refused: "suspect", most: 39},
		{inject: "fallocate:error=ENOSPC", refused: "no space"},
		{inject: "fallocate:error=EOPNOTSUPP", most: 40},
		{inject: "fallocate:error=EIO", refused: "suspect"},
		{inject: "fdatasync:error=EINTR:when=1+2", most: 40},
		{inject: "fdatasync:error=ENOSPC:when=2+", refused: "suspect", most: 39},
		{inject: "pread64:error=EIO:when=9+", most: 40, read: true},
		{inject: "lseek:error=EIO", most: 40, read: true},
	} {
		t.Run(c.inject, func(t *testing.T) {
			dir := t.TempDir()
			d, err := dataio.Open(t.Context(), dir, options())
			if err != nil {
				t.Fatal(err)
			}
			before := map[dataio.ID]byte{}
			for seed := range byte(5) {
				before[put(t, d, loadContent(seed))] = seed
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			call, _, _ := strings.Cut(c.inject, ":")
			child := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+c.inject,
				os.Args[0], "-test.run=^TestInjected$", "-test.v", "-test.timeout=1m")
			child.Env = append(os.Environ(), injectedVariable+"="+dir)
			output, err := child.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			acked, refused := before, map[dataio.ID]string{}
			why, read := "", ""
			for line := range bytes.Lines(output) {
				words := strings.SplitN(strings.TrimSpace(string(line)), " ", 4)
				if len(words) < 4 || words[0] != "injected:" {
					continue
				}
				id, err := dataio.ParseID(words[2])
				if err != nil {
					t.Fatal(err)
				}
				switch words[1] {
				case "acknowledged":
					acked[id] = words[3][0]
				case "refused":
					why, refused[id] = words[3], words[3]
				case "unread":
					read = words[3]
				}
			}
			if len(acked)-5+len(refused) != 40 || len(acked)-5 > c.most || !strings.Contains(why, c.refused) || (why == "") != (c.refused == "") {
				t.Errorf("%d of 40 were acknowledged, %d refused: %s", len(acked)-5, len(refused), why)
			}
			if (read != "") != c.read {
				t.Errorf("reading: %q", read)
			}
			again := open(t, dir, options())
			wantAll(t, again, acked)
			for id := range refused {
				if _, err := get(t, again, id); !errors.Is(err, dataio.ErrNotFound) && !errors.Is(err, dataio.ErrCorrupted) {
					t.Errorf("%s was refused, and is there (%v)", id, err)
				}
			}
		})
	}
}

// putInjected is the process whose calls fail: it reads what is there and puts
// 40 payloads, and says how each went.
func putInjected(t *testing.T, dir string) {
	d, err := dataio.Open(t.Context(), dir, options())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var ids []dataio.ID
	for seed := range byte(40) {
		id := dataio.NewID()
		content := loadContent('A' + seed)
		if err := write(t.Context(), d, id, content, int64(len(content))); err != nil {
			fmt.Printf("injected: refused %s %v\n", id, err)
			continue
		}
		fmt.Printf("injected: acknowledged %s %c\n", id, 'A'+seed)
		ids = append(ids, id)
	}
	for i := range 10 * len(ids) { // the first reads of a thread are its loader's
		id := ids[i%len(ids)]
		if _, err := get(t, d, id); errors.Is(err, dataio.ErrNotFound) || errors.Is(err, dataio.ErrCorrupted) {
			t.Errorf("what can't be read is %v", err)
		} else if err != nil {
			fmt.Printf("injected: unread %s %v\n", id, err)
		}
	}
}
