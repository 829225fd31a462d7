package door

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// Prefix is where the door is mounted: /data/{bucket}/{key…}.
const Prefix = "/data/"

// target names an object and, for a read, how old the answer may be, and whether
// what is sent is verified before.
type target struct {
	bucket, key string
	maxAge      time.Duration
	verify      bool
}

// staleParameter allows the answer to a read to be so old: ?stale=5s.
const staleParameter = "stale"

// verifyParameter has a GET send only what was compared with its checksums:
// ?verify=always.
const verifyParameter = "verify"

// parseTarget reads the bucket and the key from a request's path. It is the
// only place that does, so that what is authorised is what is touched.
//
// The path is taken as it was sent, split first and unescaped after that, once:
// %2F in a key is a slash of the key, %252F is the three characters %2F. A
// path that is no valid key ("//", "." and ".." segments) is refused, never
// rewritten or redirected.
func parseTarget(u *url.URL) (target, error) {
	sent := u.RawPath
	if sent == "" {
		sent = u.EscapedPath()
	}
	return parsePath(sent)
}

// parsePath is parseTarget for a path as it was sent.
func parsePath(sent string) (target, error) {
	rest, ok := strings.CutPrefix(sent, Prefix)
	if !ok {
		return target{}, fault.New(fault.InvalidArgument, "path", "bytes are at %s{bucket}/{key}", Prefix)
	}
	bucketPart, keyPart, _ := strings.Cut(rest, "/")
	bucket, err := url.PathUnescape(bucketPart)
	if err != nil {
		return target{}, fault.New(fault.InvalidArgument, "bucket", "%v", err)
	}
	key, err := url.PathUnescape(keyPart)
	if err != nil {
		return target{}, fault.New(fault.InvalidArgument, "key", "%v", err)
	}
	if err := object.ValidateBucket(bucket); err != nil {
		return target{}, err
	}
	if err := object.ValidateKey(key); err != nil {
		return target{}, err
	}
	return target{bucket: bucket, key: key}, nil
}

// parseQuery reads how a GET or HEAD is to be answered. Every other parameter is
// refused, and these where they mean nothing: a client that sends one expects it
// to mean something.
func parseQuery(u *url.URL, method string) (maxAge time.Duration, verify bool, err error) {
	if u.RawQuery == "" {
		return 0, false, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return 0, false, fault.New(fault.InvalidArgument, "query", "%v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name != staleParameter && name != verifyParameter {
			return 0, false, fault.New(fault.InvalidArgument, "query", "%q is no parameter of %s", name, Prefix)
		}
	}
	if values, given := query[staleParameter]; given {
		if maxAge, err = parseStale(values, method); err != nil {
			return 0, false, err
		}
	}
	if values, given := query[verifyParameter]; given {
		if verify, err = parseVerify(values, method); err != nil {
			return 0, false, err
		}
	}
	return maxAge, verify, nil
}

// parseStale reads how old the answer may be.
func parseStale(values []string, method string) (time.Duration, error) {
	bad := func(format string, args ...any) (time.Duration, error) {
		return 0, fault.New(fault.InvalidArgument, staleParameter, format, args...)
	}
	switch {
	case method != http.MethodGet && method != http.MethodHead:
		return bad("is for GET and HEAD")
	case len(values) > 1:
		return bad("is given %d times", len(values))
	}
	maxAge, err := time.ParseDuration(values[0])
	switch {
	case err != nil:
		return bad("%q is not a duration like 5s", values[0])
	case maxAge < 0, maxAge > object.MaxAgeMax:
		return bad("is %v; 0s to %v are allowed", maxAge, object.MaxAgeMax)
	}
	return maxAge, nil
}

// parseVerify reads whether bytes are to be verified before they leave.
func parseVerify(values []string, method string) (bool, error) {
	bad := func(format string, args ...any) (bool, error) {
		return false, fault.New(fault.InvalidArgument, verifyParameter, format, args...)
	}
	switch {
	case method != http.MethodGet:
		return bad("is for GET")
	case len(values) > 1:
		return bad("is given %d times", len(values))
	case values[0] != "always":
		return bad("is %q; only always is allowed", values[0])
	}
	return true, nil
}
