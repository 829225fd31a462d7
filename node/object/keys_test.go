package object

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/fault"
)

// TestBuckets: their life, and pages of them.
func TestBuckets(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0, 0}})
	ctx := testContext(t)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("bucket-%d", i)
		want = append(want, name)
		b, err := m.nodes[i%3].CreateBucket(ctx, name)
		must(t, err)
		got, err := m.nodes[(i+1)%3].GetBucket(ctx, name, 0)
		if err != nil || *got != *b || b.Name != name || b.CreatedAt.IsZero() {
			t.Errorf("created %+v, is %+v, %v", b, got, err)
		}
	}
	_, err := m.nodes[1].CreateBucket(ctx, "bucket-3")
	if fault.KindOf(err) != fault.AlreadyExists {
		t.Errorf("again: %v", err)
	}
	for _, limit := range []int{0, 1, 3, 7, 1000} {
		var names []string
		for after, page := "", 0; page < 10; page++ {
			buckets, next, err := m.nodes[page%3].ListBuckets(ctx, after, limit, 0)
			must(t, err)
			for _, b := range buckets {
				names = append(names, b.Name)
			}
			if after = next; next == "" {
				break
			}
		}
		if !slices.Equal(names, want) {
			t.Errorf("pages of %d: %v", limit, names)
		}
	}
	_, _, err = m.nodes[1].ListBuckets(ctx, "bucket-3", 0, 0)
	wantFault(t, err, fault.InvalidArgument, "page_token")
	for _, limit := range []int{-1, 1001} {
		_, _, err = m.nodes[1].ListBuckets(ctx, "", limit, 0)
		wantFault(t, err, fault.InvalidArgument, "page_size")
	}
	m.nodes[2].put(t, "bucket-1", "k", []byte("x"), true)
	if err := m.nodes[1].DeleteBucket(ctx, "bucket-1"); fault.KindOf(err) != fault.BucketNotEmpty {
		t.Errorf("not empty: %v", err)
	}
	must(t, m.nodes[0].Delete(ctx, "bucket-1", "k", Conditions{}))
	must(t, m.nodes[1].DeleteBucket(ctx, "bucket-1"))
	if err := m.nodes[1].DeleteBucket(ctx, "bucket-1"); fault.KindOf(err) != fault.BucketNotFound {
		t.Errorf("gone: %v", err)
	}
	if _, err := m.nodes[2].GetBucket(ctx, "bucket-1", 0); fault.KindOf(err) != fault.BucketNotFound {
		t.Errorf("gone: %v", err)
	}
	for _, call := range []func() error{
		func() error { _, err := m.nodes[0].CreateBucket(ctx, "A"); return err },
		func() error { _, err := m.nodes[0].GetBucket(ctx, "", 0); return err },
		func() error { return m.nodes[0].DeleteBucket(ctx, "..") },
		func() error { _, err := m.nodes[0].List(ctx, ListRequest{Bucket: "a"}); return err },
		func() error { return m.nodes[0].Delete(ctx, "a_b", "k", Conditions{}) },
		func() error { _, _, err := m.nodes[0].DeleteMany(ctx, "-a-", []string{"k"}); return err },
		func() error { _, err := m.nodes[0].Stat(ctx, "a\x00b", "k", Conditions{}, 0); return err },
		func() error {
			_, err := m.nodes[0].Copy(ctx, CopyRequest{SrcBucket: "X", SrcKey: "k", Bucket: "abc", Key: "k"})
			return err
		},
	} {
		wantFault(t, call(), fault.InvalidArgument, "bucket")
	}
}

// TestList: prefixes, delimiters, pages, and what is refused.
func TestList(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0, 0}})
	m.bucket("list")
	keys := []string{"a", "a/b", "a/b/c", "a/é", "ab", "b/1", "b/2", "b0", "c", "\U0001F600/x"}
	for i, key := range keys {
		m.nodes[i%3].put(t, "list", key, []byte(key), true)
	}
	slices.Sort(keys)
	ctx := testContext(t)
	for _, c := range []struct {
		prefix, delimiter, after string
		want                     string // common prefixes end with a slash
	}{
		{"", "", "", strings.Join(keys, " ")},
		{"a", "", "", "a a/b a/b/c a/é ab"},
		{"a/", "/", "", "a/b a/b/ a/é"},
		{"", "/", "", "a a/ ab b/ b0 c \U0001F600/"},
		{"", "/", "a", "a/ ab b/ b0 c \U0001F600/"},
		{"", "/", "b/1", "b/ b0 c \U0001F600/"},
		{"", "", "b/1", "b/2 b0 c \U0001F600/x"},
		{"b", "/", "", "b/ b0"},
		{"none", "/", "", ""},
	} {
		for limit := 1; limit <= 11; limit++ {
			var got []string
			req := ListRequest{Bucket: "list", Prefix: c.prefix, Delimiter: c.delimiter, StartAfter: c.after, Limit: limit}
			for pages := 0; pages < 20; pages++ {
				page, err := m.nodes[pages%3].List(ctx, req)
				must(t, err)
				var here []string
				for _, o := range page.Objects {
					here = append(here, o.Key)
					if o.ETag != shaHex([]byte(o.Key)) || o.SizeBytes != int64(len(o.Key)) {
						t.Errorf("%+v", o)
					}
				}
				here = append(here, page.CommonPrefixes...)
				if len(here) > limit {
					t.Errorf("%d entries on a page of %d", len(here), limit)
				}
				slices.Sort(here)
				got = append(got, here...)
				if req.Token = page.NextToken; req.Token == "" {
					break
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("prefix %q, delimiter %q, after %q, pages of %d: %q, want %q", c.prefix, c.delimiter, c.after, limit, s, c.want)
			}
		}
	}
	page, err := m.nodes[0].List(ctx, ListRequest{Bucket: "list", Limit: 1})
	must(t, err)
	for subject, req := range map[string]ListRequest{
		"page_token":  {Token: page.NextToken, Prefix: "other"},
		"page_size":   {Limit: 1001},
		"prefix":      {Prefix: strings.Repeat("x", 1025)},
		"delimiter":   {Delimiter: "\xff"},
		"start_after": {StartAfter: strings.Repeat("x", 1025)},
	} {
		req.Bucket = "list"
		_, err := m.nodes[1].List(ctx, req)
		wantFault(t, err, fault.InvalidArgument, subject)
	}
	if _, err := m.nodes[1].List(ctx, ListRequest{Bucket: "none"}); fault.KindOf(err) != fault.BucketNotFound {
		t.Error(err)
	}
}

// TestDelete: one, many, and on condition.
func TestDelete(t *testing.T) {
	m := newMesh(t, meshConfig{drives: []int{1, 0, 0}})
	m.bucket("delete")
	ctx := testContext(t)
	for _, key := range []string{"a", "b", "c", "d"} {
		m.nodes[0].put(t, "delete", key, []byte(key), true)
	}
	n := m.nodes[1]
	must(t, n.Delete(ctx, "delete", "a", Conditions{}))
	n.wantGone(t, "delete", "a")
	for _, c := range []Conditions{{}, {IfMatch: []string{"*"}}, {IfNoneMatch: []string{"x"}}} {
		if err := n.Delete(ctx, "delete", "a", c); fault.KindOf(err) != fault.ObjectNotFound {
			t.Errorf("%+v: %v", c, err)
		}
	}
	_, read := n.Stat(ctx, "delete", "a", Conditions{}, 0)
	if err := n.Delete(ctx, "delete", "a", Conditions{}); err.Error() != read.Error() {
		t.Errorf("a deletion says %q, a read %q", err, read)
	}
	wantFault(t, n.Delete(ctx, "delete", "b", Conditions{IfMatch: []string{"x"}}), fault.PreconditionFailed, "if_match")
	wantFault(t, n.Delete(ctx, "delete", "b", Conditions{IfNoneMatch: []string{"*"}}), fault.PreconditionFailed, "if_none_match")
	must(t, n.Delete(ctx, "delete", "b", Conditions{IfMatch: []string{"x", shaHex([]byte("b"))}, IfNoneMatch: []string{"x"}}))
	deleted, missing, err := m.nodes[2].DeleteMany(ctx, "delete", []string{"d", "a", "c", "d", "z"})
	if err != nil || !slices.Equal(deleted, []string{"d", "c"}) || !slices.Equal(missing, []string{"a", "z"}) {
		t.Errorf("%v, %v, %v", deleted, missing, err)
	}
	_, _, err = n.DeleteMany(ctx, "delete", []string{"a", "b", "c", "/d"})
	wantFault(t, err, fault.InvalidArgument, "keys[3]")
	for _, keys := range [][]string{nil, make([]string, ListMax+1)} {
		_, _, err = n.DeleteMany(ctx, "delete", keys)
		wantFault(t, err, fault.InvalidArgument, "keys")
	}
	if _, _, err = n.DeleteMany(ctx, "none", []string{"k"}); fault.KindOf(err) != fault.BucketNotFound {
		t.Error(err)
	}
	if err := n.Delete(ctx, "none", "k", Conditions{}); fault.KindOf(err) != fault.BucketNotFound {
		t.Error(err)
	}
	wantFault(t, n.Delete(ctx, "delete", "..", Conditions{}), fault.InvalidArgument, "key")
}

// TestCopy: within and across buckets, onto itself, on condition.
func TestCopy(t *testing.T) {
	m := newMesh(t, meshConfig{})
	m.bucket("from")
	m.bucket("to-here")
	ctx := testContext(t)
	for i, size := range boundaries {
		key := fmt.Sprint(size)
		data := randomBytes(size)
		req := PutRequest{Bucket: "from", Key: key, SizeBytes: int64(size),
			Headers: Headers{ContentType: "x/y"}, Metadata: map[string]string{"a": "b"}}
		src, err := m.nodes[0].Put(ctx, req, bytes.NewReader(data), nil)
		must(t, err)
		n := m.nodes[i%3]
		dst, err := n.Copy(ctx, CopyRequest{SrcBucket: "from", SrcKey: key, Bucket: "to-here", Key: "copy/" + key})
		if err != nil || dst.ETag != src.ETag || dst.Headers != src.Headers || dst.Metadata["a"] != "b" || dst.CRC64NVME != src.CRC64NVME {
			t.Fatalf("%d bytes: %+v, %v", size, dst, err)
		}
		must(t, n.Delete(ctx, "from", key, Conditions{}))
		if got := m.nodes[(i+1)%3].get(t, "to-here", "copy/"+key, -1, 0); !bytes.Equal(got, data) {
			t.Errorf("%d bytes: other bytes", size)
		}
		again, err := n.Copy(ctx, CopyRequest{SrcBucket: "to-here", SrcKey: "copy/" + key, Bucket: "to-here", Key: "copy/" + key})
		if err != nil || again.ETag != dst.ETag || !again.ModifiedAt.After(dst.ModifiedAt) {
			t.Errorf("onto itself: %+v, %v", again, err)
		}
	}
	small := CopyRequest{SrcBucket: "to-here", SrcKey: "copy/1", Bucket: "from", Key: "k"}
	large := CopyRequest{SrcBucket: "to-here", SrcKey: fmt.Sprintf("copy/%d", testSegment), Bucket: "from", Key: "k"}
	before := len(m.files())
	for _, req := range []CopyRequest{small, large} {
		r := req
		r.SrcConditions = Conditions{IfMatch: []string{"x"}}
		_, err := m.nodes[1].Copy(ctx, r)
		wantFault(t, err, fault.PreconditionFailed, "if_match")
		r.SrcConditions = Conditions{IfNoneMatch: []string{"*"}}
		_, err = m.nodes[1].Copy(ctx, r)
		wantFault(t, err, fault.PreconditionFailed, "source")
		r = req
		r.Conditions = Conditions{IfMatch: []string{"*"}}
		if _, err = m.nodes[1].Copy(ctx, r); fault.KindOf(err) != fault.PreconditionFailed {
			t.Error(err)
		}
		r = req
		r.Bucket = "nowhere"
		if _, err = m.nodes[1].Copy(ctx, r); fault.KindOf(err) != fault.BucketNotFound {
			t.Error(err)
		}
		r = req
		r.SrcKey = "none"
		if _, err = m.nodes[1].Copy(ctx, r); fault.KindOf(err) != fault.ObjectNotFound {
			t.Error(err)
		}
		r = req
		r.Key = "a//b"
		_, err = m.nodes[1].Copy(ctx, r)
		wantFault(t, err, fault.InvalidArgument, "key")
	}
	m.wantFiles(before)
	m.nodes[0].wantGone(t, "from", "k")
}
