package api

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/status"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
)

// TestVerify: a bit that has flipped on the drive is sent unless the request
// asks for verified bytes; a value that this node doesn't know is refused.
func TestVerify(t *testing.T) {
	s := serveStore(t)
	data := pattern(2<<20 + 5)
	if _, err := s.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: "k"}, data); err != nil {
		t.Fatal(err)
	}
	get := func(verify pb.Verify, off int64) ([]byte, error) {
		_, got, err := s.get(t, &pb.GetObjectRequest{Bucket: "photos", Key: "k", Verify: verify, Range: &pb.Range{Offset: off}, ContentInHeader: true})
		return got, err
	}
	for _, verify := range []pb.Verify{pb.Verify_VERIFY_UNSPECIFIED, pb.Verify_VERIFY_ALWAYS} {
		if got, err := get(verify, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%v: %d bytes, %v", verify, len(got), err)
		}
	}
	_, err := get(2, 0)
	checkStatus(t, "unknown", err, fault.InvalidArgument, "verify")

	files, err := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*", "payload", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{data[2<<20] ^ 1}, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := get(pb.Verify_VERIFY_UNSPECIFIED, 0); err != nil || len(got) != len(data) || bytes.Equal(got, data) {
		t.Errorf("unverified: %d bytes, %v", len(got), err)
	}
	for _, off := range []int64{0, 2<<20 + 1} { // in chunks, and in the header
		got, err := get(pb.Verify_VERIFY_ALWAYS, off)
		if status.Code(err) != fault.Corrupted.Code() || !bytes.HasPrefix(data[off:], got) {
			t.Errorf("verified from %d: %d bytes, %v, want %v", off, len(got), err, fault.Corrupted.Code())
		}
	}
}
