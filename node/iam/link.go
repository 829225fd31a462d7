package iam

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxLinkAge is how far ahead a link may end.
const MaxLinkAge = 7 * 24 * time.Hour

const (
	// linkLeeway is how far the clock of who signs a link may be ahead.
	linkLeeway = time.Minute

	maxLinkQueryBytes = 8 << 10
	maxLinkHeaders    = 16

	// LinkPrefix is the beginning of every path that a link may be for:
	// /data/{bucket}/{key}.
	LinkPrefix = "/data/"

	linkParam      = "gl-"
	linkKeyParam   = "gl-key"
	linkEndParam   = "gl-expires"
	linkNamesParam = "gl-headers"
	linkSumParam   = "gl-digest"
	linkSignature  = "gl-signature"
)

// Link is a request for bytes that is signed in its query: what ParseLink made
// of it. What it says is only true once Verify has accepted it.
type Link struct {
	// Query is the raw query without the link's own parameters and those about
	// its answer, for what serves the request.
	Query string

	method    string // as signed: GET stands for HEAD too
	path      string // escaped, as it was sent
	pairs     [][2]string
	headers   [][2]string
	answer    [][2]string // fields of the answer
	bucket    string
	key       string
	keyID     string
	expires   time.Time
	digest    *[sha256.Size]byte
	signature *sealed
}

// KeyID is whose link it says it is.
func (l *Link) KeyID() string { return l.keyID }

// Format implements fmt.Formatter: the signature, which is as good as a key
// while the link lasts, is not shown.
func (l *Link) Format(f fmt.State, _ rune) {
	if l == nil {
		_, _ = f.Write([]byte("link(none)"))
		return
	}
	_, _ = fmt.Fprintf(f, "link(%s %s of %s, till %s)", l.method, l.path, l.keyID, l.expires.UTC().Format(time.RFC3339))
}

// linkScope is all that a link is for.
type linkScope struct {
	method, bucket, key string
	digest              *[sha256.Size]byte
	answer              [][2]string
}

func (s *linkScope) covers(a Action, bucket, key string) bool {
	return a == linkAction(s.method) && bucket == s.bucket && key == s.key
}

// linkAction is what a link of that method may do; "" where there are none.
func linkAction(method string) Action {
	switch method {
	case "GET":
		return ObjectRead
	case "PUT":
		return ObjectWrite
	case "DELETE":
		return ObjectDelete
	}
	return ""
}

func badLink(format string, args ...any) error {
	return fmt.Errorf("%w: bad link: %s", ErrUnauthenticated, fmt.Sprintf(format, args...))
}

// ParseLink reads a link's parameters from a request: its method, its path as
// it was sent, its raw query, and its header by name. A request without any
// parameter that begins with "gl-" is no link: the result is nil, without an
// error. Errors wrap ErrUnauthenticated and repeat no signature.
func ParseLink(method, path, query string, header func(name string) []string) (*Link, error) {
	pairs, err := splitQuery(query)
	if err != nil {
		// What serves the request says what is wrong with its query.
		if strings.Contains(query, linkParam) {
			return nil, badLink("the query can't be decoded")
		}
		return nil, nil
	}
	if !slices.ContainsFunc(pairs, func(p queryPair) bool { return strings.HasPrefix(p.name, linkParam) }) {
		return nil, nil
	}
	if len(query) > maxLinkQueryBytes {
		return nil, badLink("the query is over %d bytes long", maxLinkQueryBytes)
	}
	l := &Link{method: method, path: path}
	if method == "HEAD" {
		l.method = "GET"
	}
	if linkAction(l.method) == "" {
		return nil, badLink("the method is none of GET, HEAD, PUT and DELETE")
	}
	if l.bucket, l.key, err = splitPath(path); err != nil {
		return nil, err
	}
	if err := l.read(pairs, header); err != nil {
		return nil, err
	}
	return l, nil
}

// read takes the link's parameters out of the query.
func (l *Link) read(pairs []queryPair, header func(name string) []string) error {
	own := map[string]string{}
	var rest []string
	for _, p := range pairs {
		if p.name != linkSignature {
			l.pairs = append(l.pairs, [2]string{p.name, p.value})
		}
		if field, ok := answerField(p.name); ok {
			if err := l.readAnswer(field, p.value); err != nil {
				return err
			}
			continue
		}
		if !strings.HasPrefix(p.name, linkParam) {
			rest = append(rest, p.raw)
			continue
		}
		switch p.name {
		case linkKeyParam, linkEndParam, linkNamesParam, linkSumParam, linkSignature:
		default:
			return badLink("an unknown parameter begins with %q", linkParam)
		}
		if _, twice := own[p.name]; twice {
			return badLink("%s is given twice", p.name)
		}
		own[p.name] = p.value
	}
	l.Query = strings.Join(rest, "&")

	if l.keyID = own[linkKeyParam]; ValidateID(l.keyID) != nil {
		return badLink("%s is missing or is no key's id", linkKeyParam)
	}
	end, err := strconv.ParseInt(own[linkEndParam], 10, 64)
	if err != nil || end <= 0 || strconv.FormatInt(end, 10) != own[linkEndParam] {
		return badLink("%s is missing or is no Unix time in seconds", linkEndParam)
	}
	l.expires = time.Unix(end, 0)
	signature := make([]byte, sha256.Size)
	if !readHex(signature, own[linkSignature]) {
		return badLink("%s is missing or isn't %d hex digits", linkSignature, 2*sha256.Size)
	}
	l.signature = seal(signature)
	if text, given := own[linkSumParam]; given {
		l.digest = new([sha256.Size]byte)
		switch {
		case l.method != "PUT":
			return badLink("%s is for PUT", linkSumParam)
		case !readHex(l.digest[:], text):
			return badLink("%s isn't %d hex digits", linkSumParam, 2*sha256.Size)
		}
	}
	names, given := own[linkNamesParam]
	if !given {
		return nil
	}
	return l.readHeaders(names, header)
}

// readHeaders takes the values of the signed headers from the request.
func (l *Link) readHeaders(names string, header func(name string) []string) error {
	for name := range strings.SplitSeq(names, ";") {
		if !validHeader(name) || len(l.headers) > 0 && l.headers[len(l.headers)-1][0] >= name {
			return badLink("%s isn't a sorted list of names in lower case, without those that carry a credential or belong to the connection", linkNamesParam)
		}
		if len(l.headers) == maxLinkHeaders {
			return badLink("%s has more than %d names", linkNamesParam, maxLinkHeaders)
		}
		values := header(name)
		if len(values) != 1 {
			return badLink("the header %s is signed, and is to be sent once", name)
		}
		l.headers = append(l.headers, [2]string{name, values[0]})
	}
	return nil
}

// validHeader takes the names that a link may sign: not those that carry a
// credential, nor those that are about the message and change on its way, of which
// a door may see another or none.
func validHeader(name string) bool {
	switch name {
	case "", "authorization", "gridloom-authorization",
		"host", "connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect":
		return false
	}
	if len(name) > 128 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// readHex reads lower-case digits: what is written in one way only can't be
// altered.
func readHex(dst []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(dst)) || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.Decode(dst, []byte(s))
	return err == nil
}

// queryPair is one parameter of a query, decoded and as it was sent.
type queryPair struct{ name, value, raw string }

var errQuery = errors.New("the query can't be decoded")

func splitQuery(query string) ([]queryPair, error) {
	var pairs []queryPair
	for raw := range strings.SplitSeq(query, "&") {
		if raw == "" {
			continue
		}
		name, value, _ := strings.Cut(raw, "=")
		n, errName := url.QueryUnescape(name)
		v, errValue := url.QueryUnescape(value)
		if errName != nil || errValue != nil || strings.Contains(raw, ";") {
			return nil, errQuery
		}
		pairs = append(pairs, queryPair{n, v, raw})
	}
	return pairs, nil
}

// splitPath reads the bucket and the key that a path is about, which the link
// is held to: if what serves the request read something else, it is refused.
func splitPath(path string) (bucket, key string, err error) {
	rest, ok := strings.CutPrefix(path, LinkPrefix)
	bucketPart, keyPart, named := strings.Cut(rest, "/")
	bucket, errBucket := url.PathUnescape(bucketPart)
	key, errKey := url.PathUnescape(keyPart)
	if !ok || !named || bucket == "" || key == "" || errBucket != nil || errKey != nil {
		return "", "", badLink("the path isn't of the form %s{bucket}/{key}", LinkPrefix)
	}
	return bucket, key, nil
}

// canonical is what is signed: fields, each as its length in decimal, a colon,
// itself and a newline. They are the name of this form, the deployment, the
// method, the path as it is sent, the number of parameters and then the
// decoded name and value of each but the signature, in their order, the number
// of signed headers and then the name in lower case and the value of each, the
// end in Unix seconds, and the digest in hex or nothing.
func (l *Link) canonical(deployment string) []byte {
	b := make([]byte, 0, 512)
	field := func(s string) {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(append(append(b, ':'), s...), '\n')
	}
	list := func(pairs [][2]string) {
		field(strconv.Itoa(len(pairs)))
		for _, p := range pairs {
			field(p[0])
			field(p[1])
		}
	}
	field(linkLabel)
	field(deployment)
	field(l.method)
	field(l.path)
	sorted := slices.Clone(l.pairs)
	slices.SortFunc(sorted, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	list(sorted)
	list(l.headers)
	field(strconv.FormatInt(l.expires.Unix(), 10))
	if l.digest != nil {
		field(hex.EncodeToString(l.digest[:]))
	} else {
		field("")
	}
	return b
}

// signedWith reports, in constant time, whether the link's signature is of the
// key.
func (l *Link) signedWith(key, canonical []byte) bool {
	return l.signature != nil && subtle.ConstantTimeCompare(mac(key, string(canonical)), l.signature.bytes[:]) == 1
}

func (l *Link) checkTime(now time.Time) error {
	switch {
	case !now.Before(l.expires):
		return fmt.Errorf("%w: the link has expired", ErrUnauthenticated)
	case l.expires.After(now.Add(MaxLinkAge + linkLeeway)):
		return fmt.Errorf("%w: the link ends in more than %v", ErrUnauthenticated, MaxLinkAge)
	}
	return nil
}
