package door

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/minio/crc64nvme"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// digests are the members of a digest field for data, by key, made without what
// is tested.
func digests(data string) map[string]string {
	sha, long, weak := sha256.Sum256([]byte(data)), sha512.Sum512([]byte(data)), md5.Sum([]byte(data))
	member := func(key string, sum []byte) string { return key + "=:" + base64.StdEncoding.EncodeToString(sum) + ":" }
	return map[string]string{
		"sha-256":   member("sha-256", sha[:]),
		"sha-512":   member("sha-512", long[:]),
		"md5":       member("md5", weak[:]),
		"crc32c":    member("crc32c", binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(data), crc32.MakeTable(crc32.Castagnoli)))),
		"crc64nvme": member("crc64nvme", binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum([]byte(data)))),
	}
}

func contentMD5(data string) string {
	sum := md5.Sum([]byte(data))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// chunked sends data in chunks and a trailer behind it, and reads the answer.
func (s *served) chunked(t testing.TB, key, head, data, trailer string) *answer {
	t.Helper()
	var body strings.Builder
	for rest := data; rest != ""; {
		n := min(len(rest), 70_000)
		fmt.Fprintf(&body, "%x\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	a, err := s.raw(t, "PUT", "PUT /data/photos/"+key+" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"+head+"\r\n"+body.String()+"0\r\n"+trailer+"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestChecksums: each algorithm, in the header and in the trailer, over a payload
// in the record and one in a file. What doesn't fit stores nothing.
func TestChecksums(t *testing.T) {
	s := serve(t, nil)
	for _, size := range []int{0, 10, 300_000} {
		data := pattern(size)
		good, bad := digests(data), digests(data+"x")
		before := s.payloads(t)
		gone := func(what, key string) {
			t.Helper()
			s.checkGone(t, what, key, before)
		}
		stored := func(key string) { // what is deleted goes from the drive later
			t.Helper()
			if a := s.do(t, "GET", key, nil); string(a.body) != data {
				t.Errorf("%s: %s, %d bytes", key, a.Status, len(a.body))
			}
			s.do(t, "DELETE", key, nil)
			before = s.payloads(t)
		}
		for key := range good {
			for _, field := range digestFields {
				name := fmt.Sprintf("%d/%s/%s", size, key, field)
				what := name + " in the header"
				checkProblem(t, what, s.do(t, "PUT", name, strings.NewReader(data), field, bad[key]), fault.ChecksumMismatch, "checksum")
				gone(what, name)
				s.put(t, name, data, http.StatusCreated, field, good[key])
				stored(name)
				// Beside it one that nobody knows.
				checkProblem(t, what, s.do(t, "PUT", name, strings.NewReader(data), field, "sha=:AAAA:, "+bad[key]), fault.ChecksumMismatch, "checksum")

				what = name + " in the trailer"
				head := "Trailer: " + field + "\r\n"
				if key == "md5" || key == "sha-512" {
					checkProblem(t, what, s.chunked(t, name, head, data, field+": "+good[key]+"\r\n"), fault.InvalidArgument, field)
					head += "Want-Repr-Digest: " + key + "=1\r\n"
				}
				checkProblem(t, what, s.chunked(t, name, head, data, field+": "+bad[key]+"\r\n"), fault.ChecksumMismatch, "checksum")
				checkProblem(t, what, s.chunked(t, name, head, data, ""), fault.IncompleteBody, "trailer")
				checkProblem(t, what, s.chunked(t, name, head, data, field+":\r\n"), fault.InvalidArgument, field)
				checkProblem(t, what, s.chunked(t, name, head, data, field+": \t\r\n"), fault.InvalidArgument, field)
				checkProblem(t, what, s.chunked(t, name, head, data, field+": "+good[key]+"\r\n"+field+": \r\n"), fault.InvalidArgument, field)
				checkProblem(t, what, s.do(t, "PUT", name, strings.NewReader(data), field, " "), fault.InvalidArgument, field)
				checkProblem(t, what, s.chunked(t, name, head, data, field+": unixsum=:AAAA:\r\n"), fault.InvalidArgument, field)
				gone(what, name)
				if key != "md5" && key != "sha-512" {
					checkProblem(t, what, s.chunked(t, name, "", data, field+": "+bad[key]+"\r\n"), fault.ChecksumMismatch, "checksum")
				}
				if a := s.chunked(t, name, head, data, field+": "+good[key]+"\r\n"); a.StatusCode != http.StatusCreated {
					t.Errorf("%s: %s %s", what, a.Status, a.body)
				}
				stored(name)
			}
		}
		name := fmt.Sprintf("%d/Content-MD5", size)
		checkProblem(t, name, s.do(t, "PUT", name, strings.NewReader(data), "Content-MD5", contentMD5(data+"x")), fault.ChecksumMismatch, "checksum")
		checkProblem(t, name, s.do(t, "PUT", name, strings.NewReader(data), "Content-MD5", "nonsense"), fault.InvalidArgument, "Content-MD5")
		checkProblem(t, name, s.do(t, "PUT", name, strings.NewReader(data), "Content-MD5", contentMD5(data), "Content-MD5", contentMD5(data)), fault.InvalidArgument, "Content-MD5")
		const head = "Trailer: Content-MD5\r\n"
		checkProblem(t, name, s.chunked(t, name, head, data, "Content-MD5: "+contentMD5("x")+"\r\n"), fault.ChecksumMismatch, "checksum")
		checkProblem(t, name, s.chunked(t, name, head, data, ""), fault.IncompleteBody, "trailer")
		checkProblem(t, name, s.chunked(t, name, head, data, "Content-MD5: \r\n"), fault.InvalidArgument, "Content-MD5")
		checkProblem(t, name, s.do(t, "PUT", name, strings.NewReader(data), "Content-MD5", " "), fault.InvalidArgument, "Content-MD5")
		checkProblem(t, name, s.chunked(t, name, "", data, "Content-MD5: "+contentMD5(data)+"\r\n"), fault.InvalidArgument, "Content-MD5")
		gone(name, name)
		s.put(t, name, data, http.StatusCreated, "Content-MD5", contentMD5(data))
		if a := s.chunked(t, name, head, data, "Content-MD5: "+contentMD5(data)+"\r\n"); a.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
		stored(name)
	}
}

// TestSummedUp: what costs is summed up for those alone who ask for it.
func TestSummedUp(t *testing.T) {
	for _, c := range []struct {
		trailer string
		sums    []object.Algorithm
		want    []string
		extra   []object.Algorithm
	}{
		{},
		{sums: []object.Algorithm{object.SHA256, object.CRC32C, object.CRC64NVME}},
		{sums: []object.Algorithm{object.MD5, object.MD5}, extra: []object.Algorithm{object.MD5}},
		{sums: []object.Algorithm{object.SHA512, object.MD5}, extra: []object.Algorithm{object.MD5, object.SHA512}},
		{trailer: "Content-Digest"},
		{trailer: "Content-Md5", extra: []object.Algorithm{object.MD5}},
		{trailer: "Repr-Digest", want: []string{"sha-512", "sha-256"}, extra: []object.Algorithm{object.SHA512}},
	} {
		r := &http.Request{Trailer: http.Header{}}
		if c.trailer != "" {
			r.Trailer[c.trailer] = nil
		}
		var sums []object.Checksum
		for _, a := range c.sums {
			sums = append(sums, object.Checksum{Algorithm: a})
		}
		if got := summedUp(r, sums, c.want); !slices.Equal(got, c.extra) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestWantDigest: a read has what its record knows, and a PUT what it asks for.
func TestWantDigest(t *testing.T) {
	s := serve(t, nil)
	for _, size := range []int{0, 10, 100_000} {
		data, key := pattern(size), fmt.Sprint(size)
		d := digests(data)
		for _, c := range []struct{ want, put, get string }{
			{"", d["sha-256"], d["sha-256"]},
			{"sha-256=1", d["sha-256"], d["sha-256"]},
			{"crc32c=1", d["crc32c"], d["crc32c"]},
			{"crc32c=1, crc64nvme=2 ,sha-256=3", d["sha-256"] + ", " + d["crc64nvme"] + ", " + d["crc32c"], d["sha-256"] + ", " + d["crc64nvme"] + ", " + d["crc32c"]},
			{"md5=9, sha-512=10", d["sha-512"] + ", " + d["md5"], d["sha-256"]},
			{"md5=10, sha-256=1", d["md5"] + ", " + d["sha-256"], d["sha-256"]},
			{"unixsum=10", d["sha-256"], d["sha-256"]},
			{"sha-256=0, crc32c=0", "", ""},
			{"nonsense", d["sha-256"], d["sha-256"]},
		} {
			a := s.do(t, "PUT", key, strings.NewReader(data), "Want-Repr-Digest", c.want)
			if got := a.Header.Get("Repr-Digest"); got != c.put || a.StatusCode >= 300 {
				t.Errorf("PUT that wants %q: %s, %s", c.want, a.Status, got)
			}
			for _, method := range []string{"GET", "HEAD"} {
				if got := s.do(t, method, key, nil, "Want-Repr-Digest", c.want).Header.Get("Repr-Digest"); got != c.get {
					t.Errorf("%s that wants %q: %s", method, c.want, got)
				}
			}
		}
		const want = "sha-256=1, crc32c=1"
		if got := s.do(t, "GET", key, nil, "Want-Content-Digest", want).Header.Get("Content-Digest"); got != d["crc32c"]+", "+d["sha-256"] {
			t.Errorf("Content-Digest %q", got)
		}
		// Of no content, and of a part, it isn't known.
		for _, a := range []*answer{
			s.do(t, "HEAD", key, nil, "Want-Content-Digest", want),
			s.do(t, "GET", key, nil, "Want-Content-Digest", want, "If-None-Match", "*"),
			s.do(t, "GET", key, nil, "Want-Content-Digest", want, "Range", "bytes=1-"),
		} {
			if got := a.Header.Get("Content-Digest"); got != "" && a.StatusCode != http.StatusOK || a.Request.Method == "HEAD" && got != "" {
				t.Errorf("%s %s: Content-Digest %q", a.Request.Method, a.Status, got)
			}
		}
	}
}

func TestParsePreferences(t *testing.T) {
	for _, c := range []struct {
		values      []string
		wanted, not string
	}{
		{nil, "", ""},
		{[]string{"sha-256=1"}, "sha-256", ""},
		{[]string{"md5=3,crc32c=3, sha-512=10"}, "sha-512 crc32c md5", ""},
		{[]string{"md5=3", "md5=0"}, "", "md5"},
		{[]string{"sha-256=10\t,\tcrc64nvme=0"}, "sha-256", "crc64nvme"},
		{[]string{"sha=1, id-sha-256=2"}, "", ""},
		{[]string{"sha-256=11"}, "", ""},
		{[]string{"sha-256=-1"}, "", ""},
		{[]string{"sha-256=+1"}, "", ""},
		{[]string{"sha-256=1.5"}, "", ""},
		{[]string{"sha-256"}, "", ""},
		{[]string{"SHA-256=1"}, "", ""},
		{[]string{"sha-256=1,"}, "", ""},
		{[]string{"sha-256=1;q=1"}, "", ""},
		{[]string{""}, "", ""},
	} {
		p := parsePreferences(c.values)
		if strings.Join(p.wanted, " ") != c.wanted || strings.Join(p.not, " ") != c.not {
			t.Errorf("%q: %+v", c.values, p)
		}
	}
}

func FuzzParsePreferences(f *testing.F) {
	for _, s := range []string{"sha-256=1, md5=0", "a=10,", "=1", "sha-256=", "*=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p := parsePreferences([]string{value})
		seen := map[string]bool{}
		for _, key := range append(p.wanted, p.not...) {
			if algorithmOf(key) == 0 || seen[key] || !strings.Contains(value, key+"=") {
				t.Fatalf("%q gave %+v", value, p)
			}
			seen[key] = true
		}
	})
}

// FuzzParseDigests: what is taken is of a known algorithm and of its size.
func FuzzParseDigests(f *testing.F) {
	for _, d := range digests("x") {
		f.Add(d, contentMD5("x"))
	}
	f.Add("sha=:AA==:", "AAAA")
	f.Fuzz(func(t *testing.T, digest, md5 string) {
		h := http.Header{"Repr-Digest": {digest}, "Content-Md5": {md5}}
		sums, err := parseDigests(h, inHeader)
		if err != nil {
			if fault.KindOf(err) != fault.InvalidArgument || sums != nil {
				t.Fatalf("%q, %q: %v, %v", digest, md5, sums, err)
			}
			return
		}
		for _, s := range sums {
			if s.Algorithm.Size() == 0 || len(s.Value) != s.Algorithm.Size() {
				t.Fatalf("%q, %q gave %v", digest, md5, s)
			}
		}
	})
}
