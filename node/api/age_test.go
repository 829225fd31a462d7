package api

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// ageIndex remembers how old the answers to queries might have been.
type ageIndex struct {
	control.Index

	mu   sync.Mutex // guards ages
	ages []time.Duration
}

func (i *ageIndex) Read(ctx context.Context, q *control.Query) (*control.Answer, error) {
	i.mu.Lock()
	i.ages = append(i.ages, q.MaxAge)
	i.mu.Unlock()
	return i.Index.Read(ctx, q)
}

// take returns what was remembered since the last call.
func (i *ageIndex) take() []time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	ages := i.ages
	i.ages = nil
	return ages
}

// serveAges is serveStore with an index that remembers; there is one object,
// photos/k.
func serveAges(t *testing.T) (*store, *ageIndex) {
	t.Helper()
	index := &ageIndex{}
	s := makeStore(t, serve(t, func(o *Options) {
		o.Objects = newObjectsOver(t, func(under control.Index) control.Index {
			index.Index = under
			return index
		})
	}))
	if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "k"}, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	index.take()
	return s, index
}

// TestMaxAge: what a reader allows reaches the index, by gRPC and as JSON; what
// nobody may allow does not.
func TestMaxAge(t *testing.T) {
	s, index := serveAges(t)
	ctx := t.Context()
	reads := map[string]func(age *durationpb.Duration) error{
		"GetObject": func(age *durationpb.Duration) error {
			_, _, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "k", MaxAge: age})
			return err
		},
		"StatObject": func(age *durationpb.Duration) error {
			_, err := s.objects.StatObject(ctx, &pb.StatObjectRequest{Bucket: "photos", Key: "k", MaxAge: age})
			return err
		},
		"ListObjects": func(age *durationpb.Duration) error {
			_, err := s.objects.ListObjects(ctx, &pb.ListObjectsRequest{Bucket: "photos", MaxAge: age})
			return err
		},
		"StreamObjects": func(age *durationpb.Duration) error {
			_, _, _, err := streamed(s.objects.StreamObjects(ctx, &pb.StreamObjectsRequest{Bucket: "photos", MaxAge: age}))
			return err
		},
		"GetBucket": func(age *durationpb.Duration) error {
			_, err := s.buckets.GetBucket(ctx, &pb.GetBucketRequest{Bucket: "photos", MaxAge: age})
			return err
		},
		"ListBuckets": func(age *durationpb.Duration) error {
			_, err := s.buckets.ListBuckets(ctx, &pb.ListBucketsRequest{MaxAge: age})
			return err
		},
	}
	for name, read := range reads {
		for _, age := range []time.Duration{0, 1, 5 * time.Second} {
			if err := read(durationpb.New(age)); err != nil {
				t.Errorf("%s %v: %v", name, age, err)
			}
			if got := index.take(); !slices.Equal(got, []time.Duration{age}) {
				t.Errorf("%s %v reached the index as %v", name, age, got)
			}
		}
		if err := read(nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := index.take(); !slices.Equal(got, []time.Duration{0}) {
			t.Errorf("%s reached the index as %v", name, got)
		}
		for _, bad := range []*durationpb.Duration{
			durationpb.New(-1), durationpb.New(time.Hour + 1), {Seconds: 1, Nanos: -1}, {Seconds: 1 << 60},
		} {
			checkStatus(t, name+" "+bad.String(), read(bad), fault.InvalidArgument, "max_age")
		}
		if got := index.take(); len(got) > 0 {
			t.Errorf("%s: a bad age reached the index as %v", name, got)
		}
	}
}

// TestMaxAgeAsJSON: the same as a query parameter.
func TestMaxAgeAsJSON(t *testing.T) {
	s, index := serveAges(t)
	for _, path := range []string{
		"/v1/buckets?", "/v1/buckets/photos?", "/v1/buckets/photos/objects?", "/v1/buckets/photos/object?key=k&",
	} {
		for _, parameter := range []string{"max_age", "maxAge"} {
			resp, body := s.call(t, "GET", path+parameter+"=1.5s", "")
			if got := index.take(); resp.StatusCode != 200 || !slices.Equal(got, []time.Duration{1500 * time.Millisecond}) {
				t.Errorf("%s%s: %s %s, reached the index as %v", path, parameter, resp.Status, body, got)
			}
		}
		for value, subject := range map[string]string{
			"-1s": "max_age", "3601s": "max_age", "5": "query", "soon": "query", "5s&maxAge=6s": "query",
		} {
			resp, body := s.call(t, "GET", path+"maxAge="+value, "")
			checkProblem(t, path+value, resp, body, fault.InvalidArgument, subject)
		}
		if got := index.take(); len(got) > 0 {
			t.Errorf("%s: a bad age reached the index as %v", path, got)
		}
	}
	resp, body := s.call(t, "DELETE", "/v1/buckets/photos/object?key=k&maxAge=5s", "")
	checkProblem(t, "a write", resp, body, fault.InvalidArgument, "maxAge")
}
