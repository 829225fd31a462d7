package dataio

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// borrowable opens a payload, finds it in memory, and leaves it to whoever
// borrows it.
func borrowable(t *testing.T, d *Drive, id ID, content []byte) *opened {
	t.Helper()
	f := openIdle(t, d, id, content)
	if !f.InMemory(0, -1) {
		t.Fatal("what was just read isn't in memory")
	}
	f.Close()
	return f.opened
}

// TestBorrow: one open file is for any number of Ranges and for who opens it, each
// reads from its own offset, and the last of them closes it.
func TestBorrow(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	d, id := idleDrive(t, content)
	var first, second, none Range
	if first.Release(); d.Borrow(&none, id) || d.Borrow(&none, NewID()) {
		t.Fatal("a file is borrowed that nobody has opened")
	}
	o := borrowable(t, d, id, content)
	if !d.Borrow(&first, id) || !d.Borrow(&second, id) || first.o != o || second.o != o {
		t.Fatal("what is open and in memory isn't borrowed")
	}
	if first.SizeBytes() != int64(len(content)) || first.CRC32C() != o.footer.total || first.Left() != int64(len(content)) {
		t.Errorf("a payload of %d bytes with %08x, of which %d are left", first.SizeBytes(), first.CRC32C(), first.Left())
	}
	f := openIdle(t, d, id, content) // moves the file's position
	if f.opened != o || d.Borrow(&none, id) {
		t.Error("whoever opens the payload has another file, or it is borrowed from him")
	}
	f.Close()
	for _, r := range []*Range{&first, &second} {
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) || r.Left() != 0 {
			t.Errorf("read %d bytes (%v), %d are left", len(got), err, r.Left())
		}
	}
	d.idle.forget(id)
	if d.Borrow(&none, id) {
		t.Error("a file is borrowed that was forgotten")
	}
	for _, r := range []*Range{&first, &second} {
		if _, err := o.f.Stat(); err != nil {
			t.Fatalf("a file is closed under its user: %v", err)
		}
		r.Release()
		r.Release()
	}
	if _, err := o.f.Stat(); err == nil {
		t.Error("a file is open that nobody has any more")
	}
}

// TestBorrowLooksAtNothing: what was seen counts for stillFor, use by Ranges keeps
// a file open, and nothing is allocated.
func TestBorrowLooksAtNothing(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	d, id := idleDrive(t, content)
	var r Range
	for name, age := range map[string]func(o *opened){
		"looked at": func(o *opened) { o.looked = o.looked.Add(-stillFor) },
		"in memory": func(o *opened) { o.memory.latest.at = o.memory.latest.at.Add(-stillFor) },
	} {
		o := borrowable(t, d, id, content)
		if age(o); d.Borrow(&r, id) {
			t.Errorf("a file is borrowed that was found to be %s too long ago", name)
			r.Release()
		}
	}
	o := borrowable(t, d, id, content)
	other := NewID()
	w, err := d.Create(t.Context(), other, int64(len(content)))
	commitIdle(t, w, err, content)
	borrowable(t, d, other, content)
	now := time.Now()
	o.since, o.looked, o.memory.latest.at = now.Add(-idleFor), now, now
	if !d.Borrow(&r, id) {
		t.Fatal("what is open and in memory isn't borrowed")
	}
	r.Release()
	if d.idle.newest != o || d.idle.oldest == o || d.idle.count != 2 {
		t.Error("a file that is in use is the first to go")
	}
	allocated := testing.AllocsPerRun(100, func() {
		if d.Borrow(&r, id) {
			r.Release()
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations for each use", allocated)
	}
}

// TestBorrowOfWhatIsGone: a payload that was removed isn't borrowed, and who has
// borrowed it before reads on.
func TestBorrowOfWhatIsGone(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	d, id := idleDrive(t, content)
	borrowable(t, d, id, content)
	var r, none Range
	if !d.Borrow(&r, id) {
		t.Fatal("what is open and in memory isn't borrowed")
	}
	defer r.Release()
	if err := d.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if d.Borrow(&none, id) {
		t.Error("a payload is borrowed that is gone")
	}
	if got, err := io.ReadAll(&r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// TestSendRange: head and bytes leave in order, as many as there is room for, and
// ReadFrom waits for room for the rest; the end of a file that was cut off is no
// error of the connection.
func TestSendRange(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	d, id := idleDrive(t, content)
	o := borrowable(t, d, id, content)
	head := []byte("HTTP/1.1 200 OK\r\n\r\n")
	send := func(wantAll bool) []byte {
		t.Helper()
		near, far := connected(t)
		var r Range
		o.looked = time.Now()
		o.memory.found(0, int64(len(content)), true, time.Now())
		if !d.Borrow(&r, id) {
			t.Fatal("what is open and in memory isn't borrowed")
		}
		defer r.Release()
		wrote, sent, err := near.SendNow(head, &r)
		if err != nil || wrote != len(head) || sent == 0 || sent == int64(len(content)) || r.Left() != int64(len(content))-sent {
			t.Fatalf("%d and %d bytes have left, %v; there are %d, and far more than there is room for", wrote, sent, err, r.Left())
		}
		done := make(chan error, 1)
		go func() {
			defer near.Close()
			n, err := near.ReadFrom(&r)
			if err == nil && wantAll && n != int64(len(content))-sent {
				err = io.ErrShortWrite
			}
			done <- err
		}()
		got, err := io.ReadAll(far)
		if err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		return got
	}
	if got := send(true); !bytes.Equal(got, append(head[:len(head):len(head)], content...)) {
		t.Errorf("%d bytes came, or others", len(got))
	}
	if err := os.Truncate(filepath.Join(d.path, payloadName, below(id)), 15<<20); err != nil {
		t.Fatal(err)
	}
	if got := send(false); !bytes.Equal(got, append(head[:len(head):len(head)], content[:15<<20]...)) {
		t.Errorf("%d bytes came of a file that ends after %d, or others", len(got), 15<<20)
	}
}

// connected are the two ends of a connection.
func connected(t *testing.T) (near *Conn, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near = NewConn(c.(*net.TCPConn))
	t.Cleanup(func() { _ = near.Close() })
	return near, far
}
