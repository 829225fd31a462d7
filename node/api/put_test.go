package api

import (
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// TestPutOutOfOrder: every order of messages but the right one is refused with
// the message's name, and leaves nothing behind.
func TestPutOutOfOrder(t *testing.T) {
	s := serveStore(t)
	h := header(&pb.PutObjectHeader{Bucket: "photos", Key: "a"})
	c := chunk(pattern(300_000))
	for _, test := range []struct {
		what     string
		messages []*pb.PutObjectRequest
		kind     fault.Kind
		subject  string
	}{
		{"nothing", nil, fault.IncompleteBody, "header"},
		{"chunk first", []*pb.PutObjectRequest{c, h, trailer()}, fault.InvalidArgument, "header"},
		{"trailer first", []*pb.PutObjectRequest{trailer()}, fault.InvalidArgument, "header"},
		{"empty first", []*pb.PutObjectRequest{{}, h, trailer()}, fault.InvalidArgument, "header"},
		{"header alone", []*pb.PutObjectRequest{h}, fault.IncompleteBody, "trailer"},
		{"no trailer", []*pb.PutObjectRequest{h, c}, fault.IncompleteBody, "trailer"},
		{"second header", []*pb.PutObjectRequest{h, c, h, trailer()}, fault.InvalidArgument, "header"},
		{"chunk after trailer", []*pb.PutObjectRequest{h, c, trailer(), c}, fault.InvalidArgument, "trailer"},
		{"header after trailer", []*pb.PutObjectRequest{h, c, trailer(), h}, fault.InvalidArgument, "trailer"},
		{"two trailers", []*pb.PutObjectRequest{h, trailer(), trailer()}, fault.InvalidArgument, "trailer"},
		{"empty message", []*pb.PutObjectRequest{h, c, {}, trailer()}, fault.InvalidArgument, "part"},
	} {
		_, err := s.send(t, test.messages...)
		checkStatus(t, test.what, err, test.kind, test.subject)
	}
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
	if _, err := s.send(t, h, chunk(nil), chunk([]byte("x")), chunk(nil), trailer()); err != nil {
		t.Errorf("empty chunks between: %v", err)
	}
}

// TestPutAnyOrder draws sequences of messages: an upload is a header, chunks and
// a trailer, and the first message that departs from that is named.
func TestPutAnyOrder(t *testing.T) {
	s := serveStore(t)
	messages := map[string]*pb.PutObjectRequest{
		"header":  header(&pb.PutObjectHeader{Bucket: "photos", Key: "any"}),
		"chunk":   chunk(pattern(10)),
		"trailer": trailer(),
		"part":    {},
	}
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"header", "chunk", "trailer", "part"}), 0, 5).Draw(rt, "messages")
		if rapid.Bool().Draw(rt, "well begun") {
			names = slices.Insert(names, 0, "header")
		}
		var sent []*pb.PutObjectRequest
		kind, subject := fault.IncompleteBody, "header" // nothing came
		state := "header"
		for _, name := range names {
			sent = append(sent, messages[name])
			switch {
			case state == "refused":
			case state == "header" && name == "header":
				state, kind, subject = "body", fault.IncompleteBody, "trailer"
			case state == "body" && name == "chunk":
			case state == "body" && name == "trailer":
				state = "end"
			default:
				kind, subject = fault.InvalidArgument, name
				switch state {
				case "header":
					subject = "header"
				case "end":
					subject = "trailer"
				}
				state = "refused"
			}
		}
		o, err := s.send(t, sent...)
		if state == "end" {
			if err != nil || o.GetSize() != int64(10*(len(names)-2)) {
				rt.Fatalf("%q: %v, %v", names, o, err)
			}
			return
		}
		if fe := fault.From(errorOf(err)); fe.Kind != kind || fe.Subject != subject {
			rt.Fatalf("%q: %v, want %v about %q", names, err, kind, subject)
		}
	})
}

func TestPutRefuses(t *testing.T) {
	s := serveStore(t)
	data := pattern(300_000)
	name := func(bucket, key string) *pb.PutObjectHeader { return &pb.PutObjectHeader{Bucket: bucket, Key: key} }
	sized := func(n int64) *pb.PutObjectHeader {
		h := name("photos", "a")
		h.Size = &n
		return h
	}
	flipped := sha(data)
	flipped.Value[0] ^= 1
	for _, c := range []struct {
		what    string
		h       *pb.PutObjectHeader
		sums    []*pb.Checksum
		kind    fault.Kind
		subject string
	}{
		{"no bucket", name("", "a"), nil, fault.InvalidArgument, "bucket"},
		{"bad bucket", name("No", "a"), nil, fault.InvalidArgument, "bucket"},
		{"no key", name("photos", ""), nil, fault.InvalidArgument, "key"},
		{"dots", name("photos", "a/../b"), nil, fault.InvalidArgument, "key"},
		{"missing bucket", name("nowhere", "a"), nil, fault.BucketNotFound, `bucket "nowhere"`},
		{"negative size", sized(-1), nil, fault.InvalidArgument, "size"},
		{"too large", sized(math.MaxInt64), nil, fault.TooLarge, "size"},
		{"shorter", sized(int64(len(data)) + 1), nil, fault.IncompleteBody, "body"},
		{"longer", sized(int64(len(data)) - 1), nil, fault.IncompleteBody, "body"},
		{"wrong sum", name("photos", "a"), []*pb.Checksum{flipped}, fault.ChecksumMismatch, ""},
		{"one wrong of two", name("photos", "a"), []*pb.Checksum{sha(data), flipped}, fault.ChecksumMismatch, ""},
		{"short sum", name("photos", "a"), []*pb.Checksum{{Algorithm: 1, Value: []byte{1}}}, fault.InvalidArgument, "checksums"},
		{"unnamed sum", name("photos", "a"), []*pb.Checksum{{Value: make([]byte, 32)}}, fault.InvalidArgument, "checksums"},
		{"unknown sum", name("photos", "a"), []*pb.Checksum{{Algorithm: 99, Value: make([]byte, 32)}}, fault.InvalidArgument, "checksums"},
		{"bad metadata", &pb.PutObjectHeader{Bucket: "photos", Key: "a", Metadata: map[string]string{"UP": "x"}}, nil, fault.InvalidArgument, "metadata"},
	} {
		_, err := s.put(t, c.h, data, c.sums...)
		if c.subject == "" {
			c.subject = fault.From(errorOf(err)).Subject
		}
		checkStatus(t, c.what, err, c.kind, c.subject)
	}
	if keys := s.keys(t); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
	_, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.send(t, header(&pb.PutObjectHeader{Bucket: "photos", Key: "b"}), chunk(make([]byte, maxMessageBytes)), trailer())
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over 4 MiB: %v", err)
	}
	if keys := s.keys(t); !slices.Equal(keys, []string{"a"}) {
		t.Errorf("left behind: %q", keys)
	}
}
