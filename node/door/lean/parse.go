package lean

import (
	"bytes"
	"net/http"
	"net/url"
)

// prefix begins every target that is served here.
const prefix = "/data/"

// maxFields bounds the fields of a head: there are fewer names in the list.
const maxFields = 24

// verdict is what the parser thinks of the bytes that have come.
type verdict int

const (
	plain    verdict = iota // a whole head, and nothing about it is in doubt
	unended                 // the beginning of what may become one
	doubtful                // anything else: it is for net/http
)

// field is a field of a head.
type field struct {
	name  string // as net/http spells it
	value []string
}

// head is a request's head.
type head struct {
	method string
	target string
	host   string
	fields []field // without Host

	// Of fields: see whole.
	direct     bool
	credential string

	url   url.URL
	block []byte // the fields as they came, with the empty line: the next request's are most often the same
}

// allowed are the fields that a plain request may have, by their names in small
// letters. None of them says anything about a body, the connection or the
// protocol, but Connection, whose value is looked at. What isn't in the list
// may be harmless, too: then net/http serves it as well.
var allowed = map[string]string{
	"accept":                 "Accept",
	"accept-encoding":        "Accept-Encoding",
	"accept-language":        "Accept-Language",
	"authorization":          "Authorization",
	"cache-control":          "Cache-Control",
	"connection":             "Connection",
	"gridloom-authorization": "Gridloom-Authorization",
	"host":                   "Host",
	"if-match":               "If-Match",
	"if-modified-since":      "If-Modified-Since",
	"if-none-match":          "If-None-Match",
	"if-range":               "If-Range",
	"if-unmodified-since":    "If-Unmodified-Since",
	"origin":                 "Origin",
	"range":                  "Range",
	"referer":                "Referer",
	"traceparent":            "Traceparent",
	"tracestate":             "Tracestate",
	"user-agent":             "User-Agent",
	"want-content-digest":    "Want-Content-Digest",
	"want-repr-digest":       "Want-Repr-Digest",
}

// longestName is the length of the longest of them.
const longestName = len("gridloom-authorization")

// class says where a byte may stand.
type class uint8

const (
	inPath   class = 1 << iota // unreserved (RFC 3986, 2.3) or a slash: it stands for itself
	inTarget                   // visible ASCII but '#', which no target has
	inName                     // letters and '-': the names of the list have no others
	inValue                    // visible ASCII and the space
	inHost
)

var classes = func() (t [256]class) {
	for c := range t {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80
		digit := '0' <= c && c <= '9'
		if letter || digit || bytes.IndexByte([]byte("-._~/"), byte(c)) >= 0 {
			t[c] |= inPath
		}
		if letter || digit || bytes.IndexByte([]byte("-._:[]"), byte(c)) >= 0 {
			t[c] |= inHost
		}
		if letter || c == '-' {
			t[c] |= inName
		}
		if 0x21 <= c && c <= 0x7e {
			t[c] |= inValue
			if c != '#' {
				t[c] |= inTarget
			}
		}
	}
	t[' '] |= inValue
	return t
}()

// all says that every byte of b may stand where of says.
func all(b []byte, of class) bool {
	for _, c := range b {
		if classes[c]&of == 0 {
			return false
		}
	}
	return true
}

// parse reads the head that data begins with, which has n bytes. What h has of a
// head before is used again where it is the same; otherwise nothing of it is
// kept, and nothing refers to data.
func (h *head) parse(data []byte) (n int, v verdict) {
	line, rest, v := cutLine(data)
	method, target, ok := cutRequest(line, v == unended)
	if !ok {
		return 0, doubtful
	}
	if v != plain {
		return 0, v
	}
	block := rest
	if m := len(h.block); m > 0 && len(block) >= m && bytes.Equal(block[:m], h.block) {
		block = block[:m]
	} else if block, v = h.parseFields(block); v != plain {
		return 0, v
	}
	h.method = method
	if !h.setTarget(target) {
		return 0, doubtful
	}
	return len(data) - len(rest) + len(block), plain
}

// cutLine takes a line off data, which must end with CR LF and have no other
// control characters. Of a line that has not ended it gives what there is.
func cutLine(data []byte) (line, rest []byte, v verdict) {
	end := bytes.IndexByte(data, '\n')
	switch {
	case end < 0:
		return data, nil, unended
	case end == 0 || data[end-1] != '\r':
		return nil, nil, doubtful
	}
	return data[:end-1], data[end+1:], plain
}

// cutRequest takes the request line to pieces. Of one that hasn't ended it only
// says whether it may become one.
func cutRequest(line []byte, unended bool) (method string, target []byte, ok bool) {
	for _, m := range [...]string{http.MethodGet, http.MethodHead} {
		begin := len(m) + 1 + len(prefix)
		if len(line) < begin {
			if unended && bytes.HasPrefix([]byte(m+" "+prefix), line) {
				return "", nil, true
			}
			continue
		}
		if string(line[:len(m)]) != m || line[len(m)] != ' ' || string(line[len(m)+1:begin]) != prefix {
			continue
		}
		if unended {
			return "", nil, true
		}
		target, ok := bytes.CutSuffix(line[len(m)+1:], []byte(" HTTP/1.1"))
		return m, target, ok && all(target, inTarget)
	}
	return "", nil, false
}

// setTarget takes the target over. What has to be unescaped is read as net/http
// reads it.
func (h *head) setTarget(target []byte) bool {
	if h.target == string(target) && h.url.Path != "" {
		return true
	}
	h.target = string(target)
	if all(target, inPath) {
		h.url = url.URL{Path: h.target}
		return true
	}
	u, err := url.ParseRequestURI(h.target)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil {
		h.target, h.url = "", url.URL{}
		return false
	}
	h.url = *u
	return true
}

// parseFields reads the fields up to the empty line, and gives them back with it.
func (h *head) parseFields(data []byte) (block []byte, v verdict) {
	h.block, h.host, h.fields = h.block[:0], "", h.fields[:0]
	rest := data
	for {
		var line []byte
		if line, rest, v = cutLine(rest); v != plain {
			return nil, v
		}
		if len(line) == 0 {
			break
		}
		if !h.parseField(line) {
			return nil, doubtful
		}
	}
	if h.host == "" {
		return nil, doubtful
	}
	h.credential, h.direct = h.whole()
	block = data[:len(data)-len(rest)]
	h.block = append(h.block, block...)
	return block, plain
}

// parseField reads a line with a field; false if it is one that isn't sure to be
// harmless. No error leaves a block behind, so that the fields count for nothing.
func (h *head) parseField(line []byte) bool {
	at := bytes.IndexByte(line, ':')
	if at < 1 || at > longestName || !all(line[:at], inName) {
		return false
	}
	var lower [longestName]byte
	for i, c := range line[:at] {
		lower[i] = c | 0x20 // of a letter and of '-' alike
	}
	name, ok := allowed[string(lower[:at])]
	value := bytes.Trim(line[at+1:], " ")
	if !ok || len(value) == 0 || !all(value, inValue) {
		return false
	}
	if name == "Host" {
		if h.host != "" || !all(value, inHost) {
			return false
		}
		h.host = string(value)
		return true
	}
	if name == "Connection" && !bytes.EqualFold(value, []byte("keep-alive")) {
		return false
	}
	for i := range h.fields {
		if h.fields[i].name == name {
			return false
		}
	}
	if len(h.fields) == maxFields {
		return false
	}
	h.fields = append(h.fields, field{name, []string{string(value)}})
	return true
}
