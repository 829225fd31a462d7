package api

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// BenchmarkSmall is an object of 4 KiB through gRPC, client and all, in either
// form.
func BenchmarkSmall(b *testing.B) {
	s := serveStore(b)
	data := pattern(4096)
	size := int64(len(data))
	if _, err := s.send(b, whole("a", data)); err != nil {
		b.Fatal(err)
	}
	for _, inHeader := range []bool{true, false} {
		b.Run(fmt.Sprintf("get/inHeader=%v", inHeader), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					g, err := s.getEither(b, &pb.GetObjectRequest{Bucket: "photos", Key: "a", ContentInHeader: inHeader})
					if err != nil || len(g.data) != len(data) {
						b.Error(len(g.data), err)
					}
				}
			})
		})
	}
	var n atomic.Int64
	for name, messages := range map[string]func(key string) []*pb.PutObjectRequest{
		"whole": func(key string) []*pb.PutObjectRequest { return []*pb.PutObjectRequest{whole(key, data)} },
		"parts": func(key string) []*pb.PutObjectRequest {
			return []*pb.PutObjectRequest{header(&pb.PutObjectHeader{Bucket: "photos", Key: key, Size: &size}), chunk(data), trailer()}
		},
	} {
		b.Run("put/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := s.send(b, messages(fmt.Sprint(n.Add(1)))...); err != nil && err != io.EOF {
						b.Error(err)
					}
				}
			})
		})
	}
}
