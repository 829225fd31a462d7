package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// twoByTwo is an index whose pages have two records at most, and which fails from
// a page on.
type twoByTwo struct {
	control.Index
	pages  atomic.Int64
	fails  atomic.Int64 // from which page on; 0: never
	broken error
}

func (i *twoByTwo) Read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	if q.Records == nil {
		return i.Index.Read(ctx, q)
	}
	if n, fails := i.pages.Add(1), i.fails.Load(); fails > 0 && n >= fails {
		return nil, i.broken
	}
	records := *q.Records
	records.Limit = min(records.Limit, 2)
	return i.Index.Read(ctx, &control.Query{MaxAge: q.MaxAge, Records: &records})
}

// serveTwoByTwo is serveStore with 0/a, 0/b, 1/a and so on to 3/b.
func serveTwoByTwo(t *testing.T) (*store, *twoByTwo) {
	t.Helper()
	index := &twoByTwo{broken: fault.New(fault.Unavailable, "", "no leader")}
	s := makeStore(t, serve(t, func(o *Options) {
		o.Objects = newObjectsOver(t, func(under control.Index) control.Index {
			index.Index = under
			return index
		})
	}))
	for i := range 8 {
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: fmt.Sprintf("%d/%c", i/2, 'a'+i%2)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s, index
}

// streamed receives a list to its end.
func streamed(stream grpc.ServerStreamingClient[pb.StreamObjectsResponse], err error) (names []string, pages int, token string, _ error) {
	for err == nil {
		var page *pb.StreamObjectsResponse
		if page, err = stream.Recv(); err != nil {
			break
		}
		pages++
		for _, o := range page.GetObjects() {
			names = append(names, o.GetKey())
		}
		names = append(names, page.GetCommonPrefixes()...)
		if token != "" {
			return names, pages, token, errors.New("a page follows the last")
		}
		token = page.GetNextPageToken()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, pages, token, err
}

// TestStreamObjects: a list comes whole, page by page, and ends, or ends at its
// limit with a token that it goes on from.
func TestStreamObjects(t *testing.T) {
	s, index := serveTwoByTwo(t)
	for _, c := range []struct {
		r     *pb.StreamObjectsRequest
		want  string
		pages int
		more  bool
	}{
		{&pb.StreamObjectsRequest{}, "0/a 0/b 1/a 1/b 2/a 2/b 3/a 3/b", 4, false},
		{&pb.StreamObjectsRequest{Prefix: "1/"}, "1/a 1/b", 1, false},
		{&pb.StreamObjectsRequest{Delimiter: "/"}, "0/ 1/ 2/ 3/", 2, false},
		{&pb.StreamObjectsRequest{StartAfter: "1/a"}, "1/b 2/a 2/b 3/a 3/b", 3, false},
		{&pb.StreamObjectsRequest{StartAfter: "2/", Limit: 3, MaxAge: durationpb.New(1e9)}, "2/a 2/b 3/a", 2, true},
		{&pb.StreamObjectsRequest{Limit: 8}, "0/a 0/b 1/a 1/b 2/a 2/b 3/a 3/b", 4, false},
		{&pb.StreamObjectsRequest{Limit: 1}, "0/a", 1, true},
		{&pb.StreamObjectsRequest{Prefix: "none"}, "", 1, false},
	} {
		c.r.Bucket = "photos"
		before := index.pages.Load()
		got, pages, token, err := streamed(s.objects.StreamObjects(t.Context(), c.r))
		if err != nil || strings.Join(got, " ") != c.want || pages != c.pages || (token != "") != c.more {
			t.Errorf("%v: %q in %d pages, token %q, %v; want %q in %d", c.r, got, pages, token, err, c.want, c.pages)
		}
		if read := index.pages.Load() - before; read != int64(c.pages) {
			t.Errorf("%v: %d pages were read for %d", c.r, read, c.pages)
		}
	}

	first, _, token, err := streamed(s.objects.StreamObjects(t.Context(), &pb.StreamObjectsRequest{Bucket: "photos", Limit: 3}))
	if err != nil {
		t.Fatal(err)
	}
	rest, _, _, err := streamed(s.objects.StreamObjects(t.Context(), &pb.StreamObjectsRequest{Bucket: "photos", PageToken: token}))
	if got := strings.Join(append(first, rest...), " "); err != nil || got != "0/a 0/b 1/a 1/b 2/a 2/b 3/a 3/b" {
		t.Errorf("%q, %v", got, err)
	}

	for subject, r := range map[string]*pb.StreamObjectsRequest{
		"limit":           {Bucket: "photos", Limit: -1},
		"page_token":      {Bucket: "photos", PageToken: "x"},
		"max_age":         {Bucket: "photos", MaxAge: durationpb.New(-1)},
		"prefix":          {Bucket: "photos", Prefix: strings.Repeat("a", 2000)},
		`bucket "nosuch"`: {Bucket: "nosuch"},
	} {
		kind := fault.InvalidArgument
		if r.GetBucket() == "nosuch" {
			kind = fault.BucketNotFound
		}
		_, _, _, err := streamed(s.objects.StreamObjects(t.Context(), r))
		checkStatus(t, subject, err, kind, subject)
	}
}

// slowReader has taken as many pages as it had when each one came.
type slowReader struct {
	grpc.ServerStreamingServer[pb.StreamObjectsResponse]
	ctx   context.Context
	index *twoByTwo
	read  []int64
}

func (r *slowReader) Context() context.Context { return r.ctx }

func (r *slowReader) Send(*pb.StreamObjectsResponse) error {
	if r.read = append(r.read, r.index.pages.Load()); len(r.read) == 3 {
		return io.ErrClosedPipe
	}
	return nil
}

// TestStreamObjectsIsNoFurther: a page is read when the one before is taken, and
// none for a reader who is gone.
func TestStreamObjectsIsNoFurther(t *testing.T) {
	index := &twoByTwo{}
	objects := newObjectsOver(t, func(under control.Index) control.Index {
		index.Index = under
		return index
	})
	s := makeStore(t, serve(t, func(o *Options) { o.Objects = objects }))
	for i := range 8 {
		if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: fmt.Sprint(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	reader := &slowReader{ctx: t.Context(), index: index}
	err := (&objectService{objects: objects}).StreamObjects(&pb.StreamObjectsRequest{Bucket: "photos"}, reader)
	if !errors.Is(err, io.ErrClosedPipe) || !slices.Equal(reader.read, []int64{1, 2, 3}) || index.pages.Load() != 3 {
		t.Errorf("%v: %v pages were read when each one left, %d in all", err, reader.read, index.pages.Load())
	}
}

// TestStreamObjectsAsJSON: a page is a line; an error before the first is the
// answer, and one behind it the last line.
func TestStreamObjectsAsJSON(t *testing.T) {
	s, index := serveTwoByTwo(t)
	get := func(query string) (status int, keys []string, last string) {
		resp, err := http.Get(s.http.URL + "/v1/buckets/" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			last = scan.Text()
			var line struct {
				Result struct {
					Objects []struct{ Key string }
				}
			}
			if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
				t.Errorf("%s: %q: %v", query, last, err)
			}
			for _, o := range line.Result.Objects {
				keys = append(keys, o.Key)
			}
		}
		return resp.StatusCode, keys, last
	}
	if status, keys, last := get("photos/objects:stream?startAfter=2/a"); status != 200 || !slices.Equal(keys, []string{"2/b", "3/a", "3/b"}) || !strings.HasPrefix(last, `{"result":`) {
		t.Errorf("%d %q %s", status, keys, last)
	}
	if status, _, last := get("nosuch/objects:stream"); status != 404 || !strings.Contains(last, "bucket_not_found") {
		t.Errorf("%d %s", status, last)
	}
	if status, _, last := get("photos/objects:stream?pageSize=1"); status != 400 || !strings.Contains(last, "pageSize") {
		t.Errorf("%d %s", status, last)
	}
	index.fails.Store(index.pages.Load() + 3)
	if status, keys, last := get("photos/objects:stream"); status != 200 || len(keys) != 4 || !strings.HasPrefix(last, `{"error":`) {
		t.Errorf("%d %q %s", status, keys, last)
	}
	index.fails.Store(index.pages.Load() + 1)
	if _, _, _, err := streamed(s.objects.StreamObjects(t.Context(), &pb.StreamObjectsRequest{Bucket: "photos"})); err == nil {
		t.Error("a list that has broken off ends as if it were whole")
	}
}
