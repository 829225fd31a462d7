package door

import (
	"net/url"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/object"
)

// Prefix is where the door is mounted: /data/{bucket}/{key…}.
const Prefix = "/data/"

// target names an object.
type target struct{ bucket, key string }

// parseTarget reads the bucket and the key from a request's URL. It is the
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
	if err := refuseQuery(u); err != nil {
		return target{}, err
	}
	return target{bucket, key}, nil
}

// refuseQuery refuses every query parameter: a client that sends one expects
// it to mean something.
func refuseQuery(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fault.New(fault.InvalidArgument, "query", "%v", err)
	}
	for name := range query {
		return fault.New(fault.InvalidArgument, "query", "%q is no parameter of %s", name, Prefix)
	}
	return nil
}
