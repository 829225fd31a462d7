package object

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// boundaries are the sizes around every change of how payload is kept or sent.
var boundaries = []int{
	0, 1, InlineMaxBytes - 1, InlineMaxBytes, InlineMaxBytes + 1,
	GridMaxBytes - 1, GridMaxBytes, GridMaxBytes + 1, 2*GridMaxBytes + 1,
	testSegment - 1, testSegment, testSegment + 1, 3*testSegment + GridMaxBytes + 5,
}

// TestPutGet: through any node in, through every node out.
func TestPutGet(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("sizes")
	for i, size := range boundaries {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, known %v", size, known), func(t *testing.T) {
				key := spell(t.Name())
				data := randomBytes(size)
				before := len(m.files())
				info := m.nodes[i%3].put(t, "sizes", key, data, known)
				if info.ETag != shaHex(data) || info.SizeBytes != int64(size) || info.Key != key || info.Bucket != "sizes" {
					t.Fatalf("put says %+v", info)
				}
				if info.CRC32C != crc32.Checksum(data, castagnoli) || info.CRC64NVME != crc64nvme.Checksum(data) {
					t.Fatalf("sums %08x, %016x", info.CRC32C, info.CRC64NVME)
				}
				segments := 0
				if size > InlineMaxBytes {
					segments = (size + testSegment - 1) / testSegment
				}
				if got := len(m.files()) - before; got != segments*3 {
					t.Errorf("%d files, want %d", got, segments*3)
				}
				for _, n := range m.nodes {
					if got := n.get(t, "sizes", key, -1, 0); !bytes.Equal(got, data) {
						t.Fatalf("%s gave other bytes", n.name)
					}
					stat, err := n.Stat(testContext(t), "sizes", key, Conditions{}, 0)
					if err != nil || stat.ETag != info.ETag || !stat.ModifiedAt.Equal(info.ModifiedAt) {
						t.Fatalf("%s: stat %+v, %v", n.name, stat, err)
					}
				}
			})
		}
	}
}

// TestPutKeepsHeaders: what was said about the content comes back.
func TestPutKeepsHeaders(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("headers")
	req := PutRequest{Bucket: "headers", Key: "ä/b c", SizeBytes: 3,
		Headers:  Headers{"text/plain", "no-cache", `attachment; filename="x"`, "gzip", "de"},
		Metadata: map[string]string{"a-b": "ü", "empty": ""}}
	if _, err := m.nodes[1].Put(testContext(t), req, bytes.NewReader([]byte("abc")), nil); err != nil {
		t.Fatal(err)
	}
	info, err := m.nodes[2].Stat(testContext(t), "headers", "ä/b c", Conditions{}, 0)
	if err != nil || info.Headers != req.Headers || len(info.Metadata) != 2 || info.Metadata["a-b"] != "ü" {
		t.Fatalf("%+v, %v", info, err)
	}
	if age := time.Since(info.ModifiedAt); age < -time.Minute || age > time.Minute {
		t.Errorf("modified at %v", info.ModifiedAt)
	}
}

// TestPutCut: an upload that ends early in any way leaves nothing, anywhere.
func TestPutCut(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("cut")
	broken := errors.New("connection reset")
	for _, size := range []int{1, InlineMaxBytes + 1, GridMaxBytes, GridMaxBytes + 1, testSegment, 2*testSegment + 7} {
		data := randomBytes(size)
		for name, c := range map[string]struct {
			declared int64
			body     func() io.Reader
			trailer  func() ([]Checksum, error)
			kind     fault.Kind
		}{
			"cut off":        {-1, func() io.Reader { return io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)) }, nil, fault.IncompleteBody},
			"cut off, known": {int64(size) + 1, func() io.Reader { return io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)) }, nil, fault.IncompleteBody},
			"too short":      {int64(size) + 1, func() io.Reader { return bytes.NewReader(data) }, nil, fault.IncompleteBody},
			"too long":       {int64(size) - 1, func() io.Reader { return bytes.NewReader(data) }, nil, fault.IncompleteBody},
			"no trailer":     {-1, func() io.Reader { return bytes.NewReader(data) }, func() ([]Checksum, error) { return nil, io.ErrUnexpectedEOF }, fault.IncompleteBody},
			"wrong checksum": {int64(size), func() io.Reader { return bytes.NewReader(data) }, func() ([]Checksum, error) {
				return []Checksum{{CRC32C, []byte{1, 2, 3, 4}}}, nil
			}, fault.ChecksumMismatch},
		} {
			t.Run(fmt.Sprintf("%s at %d", name, size), func(t *testing.T) {
				req := PutRequest{Bucket: "cut", Key: "k", SizeBytes: c.declared}
				_, err := m.nodes[size%3].Put(testContext(t), req, c.body(), c.trailer)
				if fault.KindOf(err) != c.kind {
					t.Fatalf("%v, want %v", err, c.kind)
				}
				m.nodes[0].wantGone(t, "cut", "k")
				m.wantFiles(0)
			})
		}
	}
	for _, n := range m.nodes {
		if left := n.recorded.leftBehind(); left != 0 {
			t.Errorf("%s reports %d files left behind", n.name, left)
		}
	}
}

// TestPutCanceled: the caller goes while the body is being read.
func TestPutCanceled(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("canceled")
	for _, size := range []int64{-1, 3 * testSegment} {
		ctx, cancel := context.WithCancel(testContext(t))
		body := io.MultiReader(bytes.NewReader(randomBytes(testSegment+5)), readerFunc(func(p []byte) (int, error) {
			cancel()
			return len(p), nil
		}))
		_, err := m.nodes[1].Put(ctx, PutRequest{Bucket: "canceled", Key: "k", SizeBytes: size}, body, nil)
		if fault.KindOf(err) != fault.Canceled {
			t.Errorf("size %d: %v", size, err)
		}
		m.wantFiles(0)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPutChecksums: the right ones are taken, all at once.
func TestPutChecksums(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("sums")
	for _, size := range []int{5, GridMaxBytes, testSegment + 1} {
		data := randomBytes(size)
		calls := 0
		body := iotest.OneByteReader(bytes.NewReader(data[:5]))
		_, err := m.nodes[2].Put(testContext(t), PutRequest{Bucket: "sums", Key: "k", SizeBytes: int64(size)},
			io.MultiReader(body, bytes.NewReader(data[5:])), func() ([]Checksum, error) {
				calls++
				sha := sha256.Sum256(data)
				return []Checksum{{SHA256, sha[:]},
					{CRC32C, binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli))},
					{CRC64NVME, binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum(data))}}, nil
			})
		if err != nil || calls != 1 {
			t.Errorf("%d bytes: %v, %d calls of trailer", size, err, calls)
		}
	}
}

// TestPutConditions: what the present object is decides, and of many that
// create one wins.
func TestPutConditions(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("conditional")
	ctx := testContext(t)
	put := func(n *testNode, c Conditions, body io.Reader, size int64) error {
		_, err := n.Put(ctx, PutRequest{Bucket: "conditional", Key: "k", SizeBytes: size, Conditions: c}, body, nil)
		return err
	}
	wantFault(t, put(m.nodes[1], Conditions{IfMatch: []string{"*"}}, unread{t}, 10), fault.PreconditionFailed, "if_match")
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			data := randomBytes(InlineMaxBytes + 1 + i)
			switch err := put(m.nodes[i%3], Conditions{IfNoneMatch: []string{"*"}}, bytes.NewReader(data), int64(len(data))); {
			case err == nil:
				won.Add(1)
			case fault.KindOf(err) == fault.PreconditionFailed:
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 11 {
		t.Errorf("%d created it, %d were refused", won.Load(), lost.Load())
	}
	m.wantFiles(3)
	info, err := m.nodes[0].Stat(ctx, "conditional", "k", Conditions{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, put(m.nodes[2], Conditions{IfNoneMatch: []string{"*"}}, unread{t}, 10), fault.PreconditionFailed, "if_none_match")
	wantFault(t, put(m.nodes[2], Conditions{IfMatch: []string{"W/" + info.ETag}}, unread{t}, 10), fault.PreconditionFailed, "if_match")
	wantFault(t, put(m.nodes[2], Conditions{IfUnmodifiedSince: info.ModifiedAt.Add(-time.Hour)}, unread{t}, 10), fault.PreconditionFailed, "if_unmodified_since")
	if err := put(m.nodes[2], Conditions{IfMatch: []string{"x", info.ETag}, IfModifiedSince: info.ModifiedAt.Add(time.Hour)}, bytes.NewReader([]byte("new")), 3); err != nil {
		t.Error(err)
	}
	if got := m.nodes[1].get(t, "conditional", "k", -1, 0); string(got) != "new" {
		t.Errorf("%q", got)
	}
}

// TestPutFull: a full mesh says so unread; a mesh with one drive that has room
// uses it.
func TestPutFull(t *testing.T) {
	const everything = 1 << 60
	t.Run("all", func(t *testing.T) {
		m := newMesh(t, meshConfig{drive: func(int) dataio.Options { return dataio.Options{ReserveBytes: everything} }})
		m.bucket("full")
		for _, size := range []int64{GridMaxBytes + 1, testSegment, 10 * testSegment} {
			_, err := m.nodes[1].Put(testContext(t), PutRequest{Bucket: "full", Key: "k", SizeBytes: size}, unread{t}, nil)
			wantFault(t, err, fault.NoSpace, "mesh")
		}
		for _, size := range []int{InlineMaxBytes + 1, GridMaxBytes, GridMaxBytes + 1, testSegment + 1} {
			_, err := m.nodes[1].Put(testContext(t), PutRequest{Bucket: "full", Key: "k", SizeBytes: -1}, bytes.NewReader(randomBytes(size)), nil)
			wantFault(t, err, fault.NoSpace, "mesh")
		}
		m.nodes[2].put(t, "full", "inline", []byte("fits into the index"), true)
		m.wantFiles(0)
	})
	t.Run("all but one", func(t *testing.T) {
		m := newMesh(t, meshConfig{drive: func(node int) dataio.Options {
			if node == 2 {
				return dataio.Options{}
			}
			return dataio.Options{ReserveBytes: everything}
		}})
		m.bucket("full")
		for i, size := range []int{GridMaxBytes, testSegment, 3 * testSegment} {
			for j, n := range m.nodes {
				data := randomBytes(size)
				n.put(t, "full", fmt.Sprint(i, j), data, j == 0)
				if got := m.nodes[i].get(t, "full", fmt.Sprint(i, j), -1, 0); !bytes.Equal(got, data) {
					t.Errorf("other bytes")
				}
			}
		}
	})
}

// TestPutSuspect: a drive whose sync fails costs a small put nothing and a
// large one itself, and nothing stays behind.
func TestPutSuspect(t *testing.T) {
	faults := make([]datatest.Faults, 3)
	m := newMesh(t, meshConfig{drives: []int{1, 1, 1}, drive: func(node int) dataio.Options {
		return dataio.Options{Interceptor: &faults[node]}
	}})
	m.bucket("suspect")
	faults[2].Add(datatest.Fault{Op: dataio.OpSync, Times: -1, Err: syscall.EIO})
	for i := range 12 {
		data := randomBytes(InlineMaxBytes + 1 + i)
		m.nodes[i%3].put(t, "suspect", fmt.Sprint(i), data, true)
		if got := m.nodes[(i+1)%3].get(t, "suspect", fmt.Sprint(i), -1, 0); !bytes.Equal(got, data) {
			t.Error("other bytes")
		}
	}
	m.wantFiles(24)
	faults[1].Add(datatest.Fault{Op: dataio.OpWrite, Times: -1, Skip: 1, Err: syscall.EIO})
	faults[0].Add(datatest.Fault{Op: dataio.OpWrite, Times: -1, Skip: 1, Err: syscall.EIO})
	_, err := m.nodes[0].Put(testContext(t), PutRequest{Bucket: "suspect", Key: "large", SizeBytes: -1}, bytes.NewReader(randomBytes(2*testSegment)), nil)
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	m.wantFiles(24)
}

// TestPutMissingBucket: the first thing that is looked at.
func TestPutMissingBucket(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0}})
	_, err := m.nodes[1].Put(testContext(t), PutRequest{Bucket: "nowhere", Key: "k", SizeBytes: 10}, unread{t}, nil)
	if fault.KindOf(err) != fault.BucketNotFound {
		t.Error(err)
	}
	_, err = m.nodes[1].Put(testContext(t), PutRequest{Bucket: "nowhere", Key: "../k", SizeBytes: 10}, unread{t}, nil)
	wantFault(t, err, fault.InvalidArgument, "key")
	_, err = m.nodes[1].Put(testContext(t), PutRequest{Bucket: "nowhere", Key: "k", SizeBytes: 6 << 40}, unread{t}, nil)
	wantFault(t, err, fault.TooLarge, "size")
}

// lossyIndex loses the answers to some proposals.
type lossyIndex struct {
	control.Index
	lose func(c *control.Command) (before, after error)
}

func (l *lossyIndex) Propose(ctx context.Context, c *control.Command) (*control.Result, error) {
	before, after := l.lose(c)
	if before != nil {
		return nil, before
	}
	result, err := l.Index.Propose(ctx, c)
	if err == nil && after != nil {
		return nil, after
	}
	return result, err
}

// TestPutCommitUnknown: an answer that is lost is asked for again, under the
// same request id; if it stays lost the files stay, and the object may be
// there.
func TestPutCommitUnknown(t *testing.T) {
	lost := fault.New(fault.Unavailable, "index", "the answer was lost")
	waiting := fault.New(fault.Waiting, "index", "is not connected")
	full := fault.New(fault.NoSpace, "index", "is full")
	turnedAway := []error{
		full,
		fault.New(fault.Conflict, "peers", "node b was asked for the index"),
		fault.New(fault.WrongMesh, "mesh", "is another one"),
		fault.New(fault.PermissionDenied, "index", "says no"),
	}
	var mode atomic.Value
	var ids sync.Map
	var tries atomic.Int32
	index := &lossyIndex{lose: func(c *control.Command) (error, error) {
		if c.PutRecord == nil {
			return nil, nil
		}
		ids.Store(c.RequestID, true)
		n := tries.Add(1)
		switch mode.Load() {
		case "first answer lost":
			if n == 1 {
				return nil, lost
			}
		case "all answers lost":
			return nil, lost
		case "nothing arrives":
			return waiting, nil
		case "lost, then gone":
			if n == 1 {
				return lost, nil
			}
			return waiting, nil
		case "index full":
			return full, nil
		case "committed, then turned away":
			if n == 1 {
				return nil, lost
			}
			return turnedAway[int(n)%len(turnedAway)], nil
		case "turned away, then found":
			if n == 1 {
				return nil, lost
			}
			if n == 2 {
				return full, nil
			}
		}
		return nil, nil
	}}
	m := newMesh(t, meshConfig{
		drives:  []int{1, 1},
		index:   func(i control.Index) control.Index { index.Index = i; return index },
		options: func(_ int, o *Options) { o.WaitTimeout = 400 * time.Millisecond },
	})
	m.bucket("unknown")
	n := m.nodes[0]
	put := func(what string) (*Info, int, error) {
		mode.Store(what)
		tries.Store(0)
		ids.Clear()
		info, err := n.Put(testContext(t), PutRequest{Bucket: "unknown", Key: spell(what), SizeBytes: -1}, bytes.NewReader(randomBytes(testSegment+1)), nil)
		seen := 0
		ids.Range(func(any, any) bool { seen++; return true })
		if seen != 1 {
			t.Errorf("%s: %d request ids", what, seen)
		}
		mode.Store("")
		return info, int(tries.Load()), err
	}
	if info, n, err := put("first answer lost"); err != nil || info.SizeBytes != testSegment+1 || n != 2 {
		t.Errorf("%+v, %v after %d tries", info, err, n)
	}
	m.wantFiles(4)
	if _, n, err := put("nothing arrives"); fault.KindOf(err) != fault.Waiting || n != 1 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(4)
	n.wantGone(t, "unknown", "nothing-arrives")
	if left := n.recorded.leftBehind(); left != 0 {
		t.Errorf("%d files left behind", left)
	}
	if _, n, err := put("all answers lost"); fault.KindOf(err) != fault.Unavailable || n < 2 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(8)
	if got := m.nodes[1].get(t, "unknown", "all-answers-lost", -1, 0); !bytes.Equal(got, randomBytes(testSegment+1)) {
		t.Error("what was committed can't be read")
	}
	if _, n, err := put("lost, then gone"); fault.KindOf(err) != fault.Waiting || n < 2 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(12)
	if left := n.recorded.leftBehind(); left != 8 {
		t.Errorf("%d files reported left behind, want 8", left)
	}
	if _, n, err := put("index full"); fault.KindOf(err) != fault.NoSpace || n != 1 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(12)
	// The object is there, whatever a later try is told on its way.
	if _, n, err := put("committed, then turned away"); fault.KindOf(err) != fault.Unavailable || n < 2 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(16)
	if got := m.nodes[1].get(t, "unknown", spell("committed, then turned away"), -1, 0); !bytes.Equal(got, randomBytes(testSegment+1)) {
		t.Error("what was committed can't be read")
	}
	if _, n, err := put("turned away, then found"); err != nil || n != 3 {
		t.Errorf("%v after %d tries", err, n)
	}
	m.wantFiles(20)
}

// TestPutIndexDone: an index that has ended on this node is asked once more at
// most; the put's answer says that nobody knows what came of it.
func TestPutIndexDone(t *testing.T) {
	done := make(chan struct{})
	var once sync.Once
	tries := 0
	index := &lossyIndex{lose: func(c *control.Command) (error, error) {
		if c.PutRecord == nil {
			return nil, nil
		}
		tries++
		once.Do(func() { close(done) })
		return fault.New(fault.Unavailable, "node n0", "has failed: its disk hangs"), nil
	}}
	m := newMesh(t, meshConfig{
		drives:  []int{1},
		index:   func(i control.Index) control.Index { index.Index = i; return index },
		options: func(_ int, o *Options) { o.IndexDone = done },
	})
	m.bucket("failed")
	began := time.Now()
	_, err := m.nodes[0].Put(testContext(t), PutRequest{Bucket: "failed", Key: "k", SizeBytes: 1}, strings.NewReader("x"), nil)
	wantFault(t, err, fault.Unavailable, "object failed/k")
	if took := time.Since(began); tries != 1 || took > 5*time.Second || !strings.Contains(err.Error(), "not known whether it was stored") {
		t.Errorf("%v, %d tries, %v", err, tries, took)
	}
}

// endlessBody brings a byte at a time, a hundred thousand reads before a chunk
// is full.
type endlessBody struct{ reads int }

func (b *endlessBody) Read(p []byte) (int, error) {
	b.reads++
	p[0] = 0
	return 1, pause(context.Background())
}

// TestFailedSyncEndsSlowBody: a segment that can't be synced ends a put while
// the body trickles in, and not when its next chunk is full.
func TestFailedSyncEndsSlowBody(t *testing.T) {
	var faults datatest.Faults
	m := newMesh(t, meshConfig{drives: []int{1}, drive: func(int) dataio.Options { return dataio.Options{Interceptor: &faults} }})
	m.bucket("slow")
	faults.Add(datatest.Fault{Op: dataio.OpSync, Err: syscall.EIO})
	trickle := &endlessBody{}
	body := io.MultiReader(bytes.NewReader(randomBytes(testSegment)), trickle)
	_, err := m.nodes[0].Put(testContext(t), PutRequest{Bucket: "slow", Key: "k", SizeBytes: -1}, body, nil)
	if fault.KindOf(err) == fault.Deadline || !errors.Is(err, syscall.EIO) {
		t.Errorf("after %d reads: %v", trickle.reads, err)
	}
	m.wantFiles(0)
}
