package api

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

func TestGetRanges(t *testing.T) {
	s := serveStore(t)
	data := pattern(700_000)
	for key, size := range map[string]int{"large": len(data), "small": 100, "empty": 0} {
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: key}, data[:size]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		key      string
		off, n   int64
		from, to int // want; to < 0: refused
		subject  string
	}{
		{"large", 0, 0, 0, 700_000, ""},
		{"large", 1, 0, 1, 700_000, ""},
		{"large", 0, 1, 0, 1, ""},
		{"large", 300_000, 300_001, 300_000, 600_001, ""},
		{"large", 699_999, 5, 699_999, 700_000, ""},
		{"large", -1, 0, 699_999, 700_000, ""},
		{"large", -10, 4, 699_990, 699_994, ""},
		{"large", -1_000_000, 0, 0, 700_000, ""},
		{"large", math.MinInt64, math.MaxInt64, 0, 700_000, ""},
		{"large", 5, math.MaxInt64, 5, 700_000, ""},
		{"large", 700_000, 0, 0, -1, "range.offset"},
		{"large", math.MaxInt64, 1, 0, -1, "range.offset"},
		{"large", 0, -1, 0, -1, "range.length"},
		{"small", 50, 10, 50, 60, ""},
		{"small", 100, 0, 0, -1, "range.offset"},
		{"empty", 0, 0, 0, 0, ""},
		{"empty", 0, 5, 0, 0, ""},
		{"empty", -5, 0, 0, 0, ""},
		{"empty", 1, 0, 0, -1, "range.offset"},
	} {
		what := fmt.Sprintf("%d bytes at %d of %s", c.n, c.off, c.key)
		h, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: c.key, Range: &pb.Range{Offset: c.off, Length: c.n}})
		if c.to < 0 {
			kind := fault.RangeInvalid
			if c.n < 0 {
				kind = fault.InvalidArgument
			}
			checkStatus(t, what, err, kind, c.subject)
			continue
		}
		if err != nil || !bytes.Equal(got, data[c.from:c.to]) || h.GetOffset() != int64(c.from) || h.GetLength() != int64(c.to-c.from) {
			t.Errorf("%s: %d bytes at %d, %v", what, len(got), h.GetOffset(), err)
		}
	}
}

// TestDownloadWrites: a source that is written and not read gives the same
// messages.
func TestDownloadWrites(t *testing.T) {
	data := pattern(firstBytes + 3*chunkBytes + 17)
	for _, step := range []int{1000, chunkBytes, chunkBytes + 1, len(data)} {
		sent := &sentChunks{}
		d := newDownload(sent, new(chunkPool))
		for rest := data; len(rest) > 0; {
			n := min(step, len(rest))
			if m, err := d.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if err := d.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(slices.Concat(sent.chunks...), data) || len(sent.chunks) != 5 {
			t.Errorf("written %d at a time: %d chunks, not the bytes that were written", step, len(sent.chunks))
		}
	}
	broken := &sentChunks{err: io.ErrClosedPipe}
	d := newDownload(broken, new(chunkPool))
	if _, err := d.ReadFrom(bytes.NewReader(data)); err != io.ErrClosedPipe || d.reason(io.EOF) != io.ErrClosedPipe {
		t.Errorf("a broken stream: %v, reason %v", err, d.reason(io.EOF))
	}
}

// sentChunks is a stream to nowhere.
type sentChunks struct {
	grpc.ServerStream
	chunks [][]byte
	err    error
}

func (s *sentChunks) SendMsg(m any) error {
	if s.err != nil {
		return s.err
	}
	encoded, err := newCodec().Marshal(m)
	if err != nil {
		return err
	}
	defer encoded.Free()
	got := new(pb.GetObjectResponse)
	if err := proto.Unmarshal(encoded.Materialize(), got); err != nil {
		return err
	}
	s.chunks = append(s.chunks, got.GetChunk())
	return nil
}
