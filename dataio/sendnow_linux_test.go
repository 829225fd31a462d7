package dataio_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSendNow: head and file leave in order, as much of them as there is room for,
// and ReadFrom goes on with the rest.
func TestSendNow(t *testing.T) {
	head, content := []byte("HTTP/1.1 200 OK\r\n\r\n"), bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	f := fileWith(t, content)
	near, far := pair(t)
	if wrote, sent, err := near.SendNow(head, bytes.NewReader(content)); wrote != 0 || sent != 0 || err != nil {
		t.Errorf("of memory %d and %d bytes have left, %v", wrote, sent, err)
	}
	src := &io.LimitedReader{R: f, N: int64(len(content))}
	wrote, sent, err := near.SendNow(head, src)
	if err != nil || wrote != len(head) || sent == 0 || sent == int64(len(content)) || src.N != int64(len(content))-sent {
		t.Fatalf("%d and %d bytes have left, %v; there are %d, and far more than there is room for", wrote, sent, err, src.N)
	}
	if wrote, more, err := near.SendNow(head, src); err != nil || wrote != 0 || more != 0 {
		t.Errorf("%d and %d bytes more have left, %v", wrote, more, err)
	}
	done := make(chan error, 1)
	go func() {
		n, err := near.ReadFrom(src)
		if err == nil && n != int64(len(content))-sent {
			err = io.ErrShortWrite
		}
		near.Close()
		done <- err
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, append(head[:len(head):len(head)], content...)) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSendNowThatFails: an end of the file is none of the connection's, a deadline
// that is over and a connection that is gone are.
func TestSendNowThatFails(t *testing.T) {
	f := fileWith(t, []byte("abc"))
	near, far := pair(t)
	src := &io.LimitedReader{R: f, N: 10}
	if wrote, sent, err := near.SendNow([]byte("h"), src); wrote != 1 || sent != 3 || err != nil || src.N != 7 {
		t.Errorf("%d and %d bytes have left, %v; there are %d", wrote, sent, err, src.N)
	}
	_ = near.SetWriteDeadline(time.Unix(1, 0))
	if _, sent, err := near.SendNow([]byte("h"), src); sent != 0 || !os.IsTimeout(err) {
		t.Errorf("behind the deadline %d bytes have left, %v", sent, err)
	}
	far.Close()
	near.Close()
	if wrote, _, err := near.SendNow([]byte("h"), src); wrote != 0 || err == nil {
		t.Errorf("of a closed connection %d bytes have left, %v", wrote, err)
	}
}

// TestReceive: it reads what there is, waits where there is nothing, and says so;
// the end, a deadline that is over and a connection that is closed are errors.
func TestReceive(t *testing.T) {
	near, far := pair(t)
	abc, buf := []byte("abc"), make([]byte, 10)
	if _, err := far.Write(abc); err != nil {
		t.Fatal(err)
	}
	_ = near.SetReadDeadline(time.Now().Add(time.Minute))
	if n, _, err := near.Receive(buf[:2]); err != nil || string(buf[:n]) != "ab" { // loopback may take a moment
		t.Errorf("%q came, %v", buf[:n], err)
	}
	if n, waited, err := near.Receive(buf); err != nil || string(buf[:n]) != "c" || waited {
		t.Errorf("%q came, %v; waited: %v", buf[:n], err, waited)
	}
	_ = near.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, waited, err := near.Receive(buf); n != 0 || !waited || !os.IsTimeout(err) {
		t.Errorf("of nothing %d bytes came, %v; waited: %v", n, err, waited)
	}
	_ = near.SetReadDeadline(time.Time{})
	allocated := testing.AllocsPerRun(10, func() {
		_, _ = far.Write(abc)
		_, _, _ = near.Receive(buf)
	})
	if allocated != 0 {
		t.Errorf("%v allocations for each", allocated)
	}
	far.Close()
	if n, _, err := near.Receive(buf); n != 0 || err != io.EOF {
		t.Errorf("at the end %d bytes came, %v", n, err)
	}
	near.Close()
	if n, _, err := near.Receive(buf); n != 0 || err == nil || err == io.EOF {
		t.Errorf("of a closed connection %d bytes came, %v", n, err)
	}
}

// fileWith is a file that is open at its beginning.
func fileWith(t *testing.T, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
