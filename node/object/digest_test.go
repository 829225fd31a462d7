package object

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/minio/crc64nvme"

	"github.com/gridloom/gridloom/node/fault"
)

// The check values of the two CRCs' catalogue entries.
func TestSumsKnown(t *testing.T) {
	s := newSums()
	s.add([]byte("1234"))
	s.add([]byte("56789"))
	if s.crc32c != 0xe3069283 || s.crc64nvme != 0xae8b14860a799888 || s.sizeBytes != 9 {
		t.Errorf("crc32c %08x, crc64nvme %016x of %d bytes", s.crc32c, s.crc64nvme, s.sizeBytes)
	}
}

func TestVerify(t *testing.T) {
	data := []byte("payload")
	s := newSums(MD5, SHA512)
	s.add(data)
	sha := sha256.Sum256(data)
	weak, long := md5.Sum(data), sha512.Sum512(data)
	good := []Checksum{
		{SHA256, sha[:]},
		{CRC32C, binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))},
		{CRC64NVME, binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum(data))},
		{MD5, weak[:]},
		{SHA512, long[:]},
	}
	if err := s.verify(good); err != nil {
		t.Fatal(err)
	}
	for i, c := range good {
		c.Value = bytes.Clone(c.Value)
		c.Value[0] ^= 1
		bad := append(append([]Checksum{}, good[:i]...), c)
		wantFault(t, s.verify(bad), fault.ChecksumMismatch, "checksum")
		c.Value = c.Value[1:]
		wantFault(t, s.verify([]Checksum{c}), fault.InvalidArgument, "checksum")
	}
	wantFault(t, s.verify([]Checksum{{Algorithm: 99}}), fault.InvalidArgument, "checksum")
	if extra := s.extra(); len(extra) != 2 || !bytes.Equal(extra[0].Value, weak[:]) || !bytes.Equal(extra[1].Value, long[:]) {
		t.Errorf("beside the usual ones: %v", extra)
	}
	// What nobody has asked for is not summed up, and so not taken for right.
	s = newSums()
	s.add(data)
	if err := s.verify(good[:3]); err != nil || s.extra() != nil {
		t.Errorf("%v, and beside them %v", err, s.extra())
	}
	for _, c := range good[3:] {
		wantFault(t, s.verify([]Checksum{c}), fault.InvalidArgument, "checksum")
	}
}

// TestHasher sums up many chunks while they are being reused: none of them
// before it was summed up, and all of them given back in the end.
func TestHasher(t *testing.T) {
	pool := &sync.Pool{}
	pool.New = func() any { return &chunk{home: pool} }
	want, sums := newSums(), newSums()
	h := newHasher(sums)
	seen := map[*chunk]bool{}
	for i := range 50 {
		c := pool.Get().(*chunk)
		if held := c.holders.Load(); held != 0 {
			t.Fatalf("chunk %d is held %d times", i, held)
		}
		c.hold()
		seen[c] = true
		c.n = i * 1000
		for j := range c.n {
			c.buf[j] = byte(i + j)
		}
		want.add(c.bytes())
		h.add(c)
		c.release()
	}
	h.finish()
	for c := range seen {
		if held := c.holders.Load(); held != 0 {
			t.Errorf("a chunk is held %d times", held)
		}
	}
	if sums.sizeBytes != want.sizeBytes || sums.crc64nvme != want.crc64nvme || !bytes.Equal(sums.of(SHA256), want.of(SHA256)) {
		t.Errorf("sums differ: %d bytes, want %d", sums.sizeBytes, want.sizeBytes)
	}
}

func TestBodyReader(t *testing.T) {
	read := func(r io.Reader, declared, limit int64, buf int) (string, error) {
		b := &bodyReader{r: r, declared: declared, limit: limit}
		var out bytes.Buffer
		p := make([]byte, buf)
		for !b.ended {
			n, err := b.fill(t.Context(), p)
			out.Write(p[:n])
			if err != nil {
				return out.String(), err
			}
			if n < len(p) && !b.ended {
				t.Fatalf("%d of %d bytes, and not at the end", n, len(p))
			}
		}
		return out.String(), nil
	}
	text := "0123456789"
	for _, buf := range []int{1, 3, 10, 11, 64} {
		for _, wrap := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader,
		} {
			for _, declared := range []int64{-1, 10} {
				if got, err := read(wrap(bytes.NewReader([]byte(text))), declared, 10, buf); err != nil || got != text {
					t.Errorf("buffer %d, declared %d: %q, %v", buf, declared, got, err)
				}
			}
			_, err := read(wrap(bytes.NewReader([]byte(text))), 11, 100, buf)
			wantFault(t, err, fault.IncompleteBody, "body")
			_, err = read(wrap(bytes.NewReader([]byte(text))), 9, 100, buf)
			wantFault(t, err, fault.IncompleteBody, "body")
			_, err = read(wrap(bytes.NewReader([]byte(text))), -1, 9, buf)
			wantFault(t, err, fault.TooLarge, "size")
		}
	}
	cut := io.MultiReader(bytes.NewReader([]byte(text)), iotest.ErrReader(io.ErrUnexpectedEOF))
	_, err := read(cut, -1, 100, 4)
	wantFault(t, err, fault.IncompleteBody, "body")
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cause lost: %v", err)
	}
	_, err = read(iotest.ErrReader(fault.New(fault.TooLarge, "chunk", "is too large")), -1, 100, 4)
	wantFault(t, err, fault.TooLarge, "chunk")
	_, err = read(iotest.ErrReader(context.DeadlineExceeded), -1, 100, 4)
	if fault.KindOf(err) != fault.Deadline {
		t.Errorf("deadline became %v", err)
	}
	_, err = read(stuck{}, -1, 100, 4)
	wantFault(t, err, fault.IncompleteBody, "body")
}

// stuck is a reader that never makes progress.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }
