package dataio

import "testing"

// TestWriteBehind: whatever size a payload has, little is left to the sync, and
// the disk isn't asked for small parts on the way.
func TestWriteBehind(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ announced, written, left, calls int64 }{
		{64 * mib, 64 * mib, mib, 11},
		{64*mib + 5, 64*mib + 5, 2 * mib, 12},
		{1024 * mib, 1024 * mib, mib, 131},
		{-1, 64 * mib, 0, 8}, // it may end anywhere
		{mib - 1, mib - 1, mib - 1, 0},
		{0, 0, 0, 0},
	} {
		var b behind
		var begun, calls int64
		for end := int64(0); end < c.written; {
			end = min(end+256<<10, c.written)
			if off, n := b.due(c.announced, end); n > 0 {
				if off != begun || off+n != end {
					t.Fatalf("of %d bytes: %d from %d on, where %d were begun and %d written", c.announced, n, off, begun, end)
				}
				begun, calls = end, calls+1
			}
		}
		if left := c.written - begun; left > c.left || calls > c.calls {
			t.Errorf("%d of %d bytes: %d left, %d calls; want %d and %d at most", c.written, c.announced, left, calls, c.left, c.calls)
		}
	}
}

// TestWriterWritesBehind: a Writer tells the system to begin while it is written to.
func TestWriterWritesBehind(t *testing.T) {
	const size = 4 << 20
	d, id := idleDrive(t, []byte("another"))
	id[0]++
	w, err := d.Create(t.Context(), id, size)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for range size / (256 << 10) {
		if _, err := w.Write(make([]byte, 256<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if left := size - int64(w.behind); left > writeBehindLeast {
		t.Errorf("%d of %d bytes are left to the sync", left, size)
	}
}

// idleDrive opens a drive, and writes a payload on it.
func idleDrive(t *testing.T, content []byte) (*Drive, ID) {
	t.Helper()
	d, err := Open(t.Context(), t.TempDir(), Options{Deployment: "d", Node: "n", ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	id := NewID()
	w, err := d.Create(t.Context(), id, int64(len(content)))
	commitIdle(t, w, err, content)
	return d, id
}

func commitIdle(t *testing.T, w *Writer, err error, content []byte) {
	t.Helper()
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}
