package control

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/control/replica"
)

// encodeRow makes a row's value.
func encodeRow(version byte, m interface {
	msgp.Marshaler
	msgp.Sizer
}) ([]byte, error) {
	return m.MarshalMsg(append(make([]byte, 0, 1+m.Msgsize()), version))
}

// objectKey draws keys that are close to each other, in the order of their
// bytes and in their common prefixes.
func objectKey() *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "/", "~", " ", "\x01", "é", "\U0010FFFF"}), 1, 6), func(parts []string) string {
		return strings.Join(parts, "")
	})
}

// Rows sort by bucket, then by the bytes of the key, then newest first, and
// say what they were made of.
func TestRecordKeyOrder(t *testing.T) {
	type place struct {
		bucket [16]byte
		key    string
		index  uint64
	}
	draw := rapid.Custom(func(t *rapid.T) place {
		return place{
			bucket: [16]byte{15: byte(rapid.IntRange(0, 2).Draw(t, "bucket")), 0: byte(rapid.SampledFrom([]int{0, 255}).Draw(t, "high"))},
			key:    objectKey().Draw(t, "key"),
			index:  rapid.SampledFrom([]uint64{0, 1, 255, 256, 1 << 40, math.MaxUint64}).Draw(t, "index"),
		}
	})
	order := func(a, b place) int {
		if c := bytes.Compare(a.bucket[:], b.bucket[:]); c != 0 {
			return c
		}
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		switch {
		case a.index > b.index:
			return -1
		case a.index < b.index:
			return 1
		}
		return 0
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		rowA, rowB := recordKey(a.bucket, a.key, a.index), recordKey(b.bucket, b.key, b.index)
		if got, want := bytes.Compare(rowA, rowB), order(a, b); got != want {
			t.Fatalf("%+v and %+v compare as %d, their rows as %d", a, b, want, got)
		}
		bucket, key, index, err := parseRecordKey(rowA)
		if err != nil || bucket != a.bucket || string(key) != a.key || index != a.index {
			t.Fatalf("%+v is read as %x %q %d: %v", a, bucket, key, index, err)
		}
		behind := appendBehind(nil, a.bucket, a.key)
		if (bytes.Compare(rowB, behind) >= 0) != (bytes.Compare(b.bucket[:], a.bucket[:]) > 0 || b.bucket == a.bucket && b.key > a.key) {
			t.Fatalf("%+v is on the wrong side of what lies behind %+v", b, a)
		}
	})
}

// A position may be any bytes: it stands between the keys where these sort.
func TestRecordsBehindAnyPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := objectKey().Draw(t, "key")
		position := string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, ' ', 'a', 'b', '/', 0xc3, 0xff}), 1, 5).Draw(t, "position"))
		index := rapid.Uint64().Draw(t, "index")
		row := recordKey([16]byte{1}, key, index)
		if got, want := bytes.Compare(row, appendBehind(nil, [16]byte{1}, position)) >= 0, key > position; got != want {
			t.Fatalf("key %q behind position %q: %t, want %t", key, position, got, want)
		}
	})
}

func TestGarbageKeys(t *testing.T) {
	names := rapid.StringMatching(`[a-c-]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) Garbage {
			return Garbage{
				Drive:   names.Draw(t, label),
				LogTime: rapid.SampledFrom([]int64{0, 1, 255, 256, math.MaxInt64}).Draw(t, "time"),
				ID:      [16]byte{byte(rapid.IntRange(0, 255).Draw(t, "id"))},
			}
		}
		a, b := draw("a"), draw("b")
		rowA, rowB := garbageKey(a.Drive, a.LogTime, a.ID), garbageKey(b.Drive, b.LogTime, b.ID)
		if got, err := parseGarbageKey(rowA); err != nil || got != a {
			t.Fatalf("%+v is read as %+v: %v", a, got, err)
		}
		inside := bytes.Compare(rowB, garbagePosition(a.Drive, 0)) >= 0 && bytes.Compare(rowB, garbagePosition(a.Drive, a.LogTime)) < 0
		if want := b.Drive == a.Drive && b.LogTime < a.LogTime; inside != want {
			t.Fatalf("%+v lies before %+v on its drive: %t, want %t", b, a, inside, want)
		}
	})
}

func TestAfter(t *testing.T) {
	for _, tc := range []struct{ prefix, want string }{
		{"a", "b"}, {"a\xff", "b"}, {"a\xff\xff", "b"}, {"\x00", "\x01"},
	} {
		if got := after([]byte(tc.prefix)); string(got) != tc.want {
			t.Errorf("after %q is %q, want %q", tc.prefix, got, tc.want)
		}
	}
	if got := after([]byte("\xff\xff")); got != nil {
		t.Errorf("something comes after everything: %q", got)
	}
}

// What a record is doesn't depend on how it came: the same record is the same
// bytes, after the wire and with its maps in any order.
func TestRecordEncodingIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := Record{
			Key:      objectKey().Draw(t, "key"),
			ETag:     "e",
			SHA256:   rapid.SampledFrom([][]byte{nil, {}, {1}}).Draw(t, "sha"),
			Inline:   rapid.SampledFrom([][]byte{nil, {}, {1, 2}}).Draw(t, "inline"),
			Segments: rapid.SampledFrom([][]Segment{nil, {}, {{SizeBytes: 1, Drives: []string{"d"}}}}).Draw(t, "segments"),
			Metadata: rapid.MapOfN(rapid.StringN(0, 3, 9), rapid.StringN(0, 3, 9), 0, 9).Draw(t, "metadata"),
			Tags:     rapid.SampledFrom([]Pairs{nil, {}, {"a": "b"}}).Draw(t, "tags"),
		}
		first := stored(&rec, 7)
		want, err := encodeRow(RecordVersion, &first)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := rec.MarshalMsg(nil)
		if err != nil {
			t.Fatal(err)
		}
		var came Record
		if rest, err := came.UnmarshalMsg(wire); err != nil || len(rest) != 0 {
			t.Fatal(err, rest)
		}
		second := stored(&came, 7)
		got, err := encodeRow(RecordVersion, &second)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("two encodings of one record: %v\n%q\n%q", err, want, got)
		}
		var back Record
		if err := decodeRow(RecordVersion, want, &back); err != nil {
			t.Fatal(err)
		}
		if back.Version != RecordVersion || back.LogTime != 7 || back.Key != rec.Key || len(back.Metadata) != len(rec.Metadata) {
			t.Fatalf("%+v came back as %+v", rec, back)
		}
	})
}

func TestUnknownRowVersions(t *testing.T) {
	value, err := encodeRow(rowVersion, &Bucket{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty":           {},
		"another version": append([]byte{rowVersion + 1}, value[1:]...),
		"cut off":         value[:len(value)-1],
		"too long":        append(bytes.Clone(value), 0),
	} {
		if err := decodeRow(rowVersion, bad, new(Bucket)); !errors.Is(err, errRow) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err = decodeRow(rowVersion, []byte{9, 0x80}, new(Bucket))
	if err == nil || !strings.Contains(err.Error(), "version 9 is not known here, only 1") {
		t.Errorf("the error doesn't say what is wrong: %v", err)
	}
}

// Whatever is on disk or comes over the wire, it is read or refused, without
// a panic and without much memory.
func FuzzDecode(f *testing.F) {
	rec := Record{Key: "k", ETag: "e", Metadata: Pairs{"a": "b"}, Segments: []Segment{{SizeBytes: 1, Drives: []string{"d"}}}}
	row, _ := encodeRow(RecordVersion, &rec)
	cmd, _ := complete(&Command{PutRecord: &PutRecord{BucketName: "b", Birth: 1, Record: rec}}).MarshalMsg(nil)
	answer, _ := (&Answer{Records: []Record{rec}, Topology: &Topology{Nodes: []Node{{Name: "n"}}}}).MarshalMsg(nil)
	logged, _ := encodeEntry(1, complete(&Command{BindNode: &BindNode{Node: "n", RaftID: 1}}))
	hello, _ := (&greeting{Name: "a", Founders: []founder{{Name: "a"}}}).MarshalMsg(nil)
	recopy, _ := complete(&Command{Recopy: &Recopy{Birth: 1, Entries: []CopyChange{{Add: []string{"d"}, Remove: []string{"e"}, Drop: []string{"f"}, Settled: true}}}}).MarshalMsg(nil)
	drive, _ := complete(&Command{MarkDrive: &MarkDrive{Drive: "d", Remove: true}}).MarshalMsg(nil)
	scrub, _ := complete(&Command{NoteScrub: &NoteScrub{Scrub: ScrubState{Round: 1, After: "x"}}}).MarshalMsg(nil)
	quota, _ := complete(&Command{SetQuota: &SetQuota{Bucket: "b", MaxBytes: 1}}).MarshalMsg(nil)
	owner, _ := encodeRow(rowVersion, &segmentRow{Key: "k", Garbage: []string{"d"}, Heal: true, Reclaimed: 1})
	copies, _ := (&Answer{Copies: []SegmentCopies{{Key: "k", Drives: []string{"d"}}}, Scrub: &ScrubState{}, Totals: &Totals{}, BucketUsages: []NamedUsage{{Name: "b"}}}).MarshalMsg(nil)
	asked, _ := (&Query{Copies: &CopiesQuery{After: copiesPosition(recordKey([16]byte{}, "k", 1), 2), Good: []string{"d"}, Want: 2}}).MarshalMsg(nil)
	f.Add([]byte(copiesPosition(recordKey([16]byte{}, "k", 1), 2)))
	for _, b := range [][]byte{nil, recopy, drive, scrub, quota, owner, copies, asked, row, cmd, logged, hello, answer, {RecordVersion, 0xdf, 0xff, 0xff, 0xff, 0xff}, {1, 0xdd, 0xff, 0xff, 0xff, 0xff}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []msgp.Unmarshaler{new(Record), new(Bucket), new(Node), new(metaRow), new(identityRow), new(replyRow), new(issuedRow), new(segmentRow), new(garbageRow), new(closedRow), new(slotTable), new(healRow), new(totalsRow), new(BucketUsage), new(ScrubState)} {
			_ = decodeRow(rowVersion, b, m)
		}
		_, _, _, _ = parseRecordKey(b)
		_, _ = parseGarbageKey(b)
		if row, passed, err := parseCopiesPosition(string(b)); err == nil && copiesPosition(row, passed) != string(b) {
			t.Fatalf("%q is read as %q and %d", b, row, passed)
		}
		var part, whole Record
		if decodeRow(RecordVersion, b, &whole) == nil {
			if err := decodeSegments(b, &part); err != nil || len(part.Segments) != len(whole.Segments) {
				t.Fatalf("%q has the segments %+v, and not %+v: %v", b, part.Segments, whole.Segments, err)
			}
		} else {
			_ = decodeSegments(b, &part)
		}
		var c Command
		if _, err := c.UnmarshalMsg(b); err == nil && c.validate() == nil {
			again, err := c.MarshalMsg(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := new(Command).UnmarshalMsg(again); err != nil {
				t.Fatalf("a valid command can't be read back: %v", err)
			}
		}
		var q Query
		if _, err := q.UnmarshalMsg(b); err == nil {
			_ = q.validate()
		}
		_, _ = new(Answer).UnmarshalMsg(b)
		_, _ = new(outcome).UnmarshalMsg(b)
		_, _ = new(greeting).UnmarshalMsg(b)
		_, _ = new(opening).UnmarshalMsg(b)
		_, _ = new(snapshotRef).UnmarshalMsg(b)
		_, _ = new(manifest).UnmarshalMsg(b)
		_, _ = new(proposed).UnmarshalMsg(b)
		if e, err := decodeEntry(&replica.Entry{Index: 1, Data: b}); err == nil && e.Command != nil {
			_ = e.Command.validate()
		}
	})
}

// The order of the rows is that of their bytes, and of their prefixes, as
// Pebble wants it: of whole rows, of bounds, and of what separates blocks.
func TestRowOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var rows [][]byte
	for range 400 {
		var bucket [16]byte
		bucket[rng.IntN(16)] = byte(rng.IntN(3))
		key := strings.Repeat("abcd"[rng.IntN(4):], 16)[:1+rng.IntN(16)]
		record := recordKey(bucket, key, uint64(rng.IntN(3))<<(8*rng.IntN(8)))
		if n := splitRow(record); n != len(record)-8 || !bytes.Equal(record[:n], recordPrefix(bucket, key)) {
			t.Fatalf("%q is split at %d", record, n)
		}
		bounds := [][]byte{
			recordPrefix(bucket, key), recordPosition(bucket, key), recordPosition(bucket, ""),
			appendBehind(nil, bucket, key), after(recordPosition(bucket, key)),
			replyKey(bucket), segmentKey(bucket), garbageKey(key, 0, bucket), closedKey(bucket), bucketKey(key), metaKey(),
		}
		for _, b := range bounds {
			if splitRow(b) != len(b) {
				t.Fatalf("%q is split at %d", b, splitRow(b))
			}
		}
		rows = append(append(rows, record), bounds[rng.IntN(len(bounds))])
	}
	for range 2 { // with what separates them
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for i := range len(rows) - 1 {
			a, b := rows[i], rows[i+1]
			if bytes.Compare(a, b) > 0 {
				a, b = b, a
			}
			if bytes.Equal(a, b) {
				continue
			}
			of, next := a[:splitRow(a)], b[:splitRow(b)]
			if c := bytes.Compare(of, next); c > 0 || c == 0 && bytes.Compare(a[len(of):], b[len(next):]) >= 0 {
				t.Fatalf("%q comes before %q, and its prefix doesn't", a, b)
			}
			s := separateRows([]byte("x"), a, b)[1:]
			if bytes.Compare(s, a) < 0 || bytes.Compare(s, b) >= 0 {
				t.Fatalf("%q doesn't separate %q and %q", s, a, b)
			}
			rows = append(rows, s)
		}
	}
}
