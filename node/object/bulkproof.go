package object

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// The header fields of a bulk request's proof.
const (
	headerFrom    = "Gridloom-Bulk-From"    // node that asks
	headerTo      = "Gridloom-Bulk-To"      // node that is asked
	headerMesh    = "Gridloom-Bulk-Mesh"    // deployment id
	headerExpires = "Gridloom-Bulk-Expires" // unix milliseconds
	headerProof   = "Gridloom-Bulk-Proof"   // HMAC-SHA-256 in hex
)

// proofLife is how long a proof is good for. The clocks of two nodes may differ
// by as much in either direction; at more than that every bulk request between
// them is refused, and says by how much they differ. (A node whose clock is
// 10 s off complains long before.)
const proofLife = time.Minute

// claim is what a proof covers. Beside it, a body is covered by the CRC32C that
// the sender compares, against accidents only: who can change bytes on the way
// is kept out by TLS.
type claim struct {
	method, path, rng string // path is escaped, with its query; rng is the Range field
	length            int64  // Content-Length; -1 for a chunked body
	from, to, mesh    string
	expires           int64 // unix ms
}

// proof is HMAC-SHA-256 under a key derived from the mesh secret, so that no
// other use of that can be mistaken for it. Fields are prefixed with their
// lengths.
func (c *claim) proof(secret []byte) []byte {
	key := hmac.New(sha256.New, secret)
	key.Write([]byte("gridloom bulk v1"))
	mac := hmac.New(sha256.New, key.Sum(nil))
	var buf []byte
	for _, field := range []string{c.method, c.path, c.rng, c.from, c.to, c.mesh} {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(field)))
		buf = append(buf, field...)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(c.length))
	buf = binary.BigEndian.AppendUint64(buf, uint64(c.expires))
	mac.Write(buf)
	return mac.Sum(nil)
}

// sign adds the proof to a request for node to.
func (s *Service) sign(h http.Header, method, path string, length int64, to string) {
	c := &claim{
		method: method, path: path, rng: h.Get("Range"), length: length,
		from: s.o.Self, to: to, mesh: s.o.Deployment(),
		expires: time.Now().Add(proofLife).UnixMilli(),
	}
	h.Set(headerFrom, url.QueryEscape(c.from))
	h.Set(headerTo, url.QueryEscape(c.to))
	h.Set(headerMesh, url.QueryEscape(c.mesh))
	h.Set(headerExpires, strconv.FormatInt(c.expires, 10))
	if secrets := s.o.Secrets(); len(secrets) > 0 {
		h.Set(headerProof, hex.EncodeToString(c.proof(secrets[0])))
	}
}

// authenticate checks who asks before anything else of a bulk request is
// looked at, its body least of all.
func (s *Service) authenticate(r *http.Request) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Unauthenticated, "bulk request", format, args...)
	}
	c, err := claimOf(r)
	if err != nil {
		return bad("%s", err)
	}
	// A certificate that is shown counts, and the proof beside it, too.
	certified := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
	if certified && !s.certifies(r.TLS, c.from) {
		return bad("the client certificate is not that of node %q", c.from)
	}
	switch secrets := s.o.Secrets(); {
	case len(secrets) > 0:
		if !proven(c, r.Header.Get(headerProof), secrets) {
			return bad("does not prove the mesh secret")
		}
	case !certified && !s.o.Insecure:
		return bad("has neither a proof nor a client certificate")
	}
	if left := time.Until(time.UnixMilli(c.expires)); left < 0 || left > 2*proofLife {
		return bad("has expired, or will only begin: the clock of node %s is %v off this one's", c.from, (left - proofLife).Round(time.Second))
	}
	if c.to != s.o.Self {
		return fault.New(fault.WrongMesh, "bulk request", "is for node %q; this is %q", c.to, s.o.Self)
	}
	switch mesh := s.o.Deployment(); {
	case c.mesh == "" && isSnapshot(r): // of a node that is about to join
	case mesh == "":
		return fault.New(fault.Waiting, "mesh", "is not agreed on yet")
	case mesh != c.mesh:
		return fault.New(fault.WrongMesh, "bulk request", "is from another mesh")
	}
	return nil
}

func claimOf(r *http.Request) (*claim, error) {
	c := &claim{
		method: r.Method, path: pathAndQuery(r.URL), rng: r.Header.Get("Range"), length: r.ContentLength,
	}
	var err error
	for _, f := range []struct {
		name string
		to   *string
	}{{headerFrom, &c.from}, {headerTo, &c.to}, {headerMesh, &c.mesh}} {
		if *f.to, err = url.QueryUnescape(r.Header.Get(f.name)); err != nil {
			return nil, err
		}
	}
	c.expires, err = strconv.ParseInt(r.Header.Get(headerExpires), 10, 64)
	return c, err
}

// pathAndQuery is what a request is for, as its first line has it.
func pathAndQuery(u *url.URL) string {
	if u.RawQuery == "" {
		return u.EscapedPath()
	}
	return u.EscapedPath() + "?" + u.RawQuery
}

// proven compares a proof with what every secret would give, in constant time.
func proven(c *claim, proof string, secrets [][]byte) bool {
	got, err := hex.DecodeString(proof)
	if err != nil {
		return false
	}
	ok := false
	for _, secret := range secrets {
		ok = hmac.Equal(got, c.proof(secret)) || ok
	}
	return ok
}

// certificateName is what the certificate of a node must be for.
func (s *Service) certificateName(node string, u *url.URL) string {
	if s.o.HostCertificates {
		return u.Hostname()
	}
	return node
}

// certifies says whether the client's certificate is that of a node.
func (s *Service) certifies(state *tls.ConnectionState, node string) bool {
	u := &url.URL{}
	if s.o.HostCertificates {
		t := s.o.Topology()
		if t == nil || t.Node(node) == nil {
			return false
		}
		var err error
		if u, err = url.Parse(t.Node(node).URL); err != nil {
			return false
		}
	}
	name := s.certificateName(node, u)
	return name != "" && state.VerifiedChains[0][0].VerifyHostname(name) == nil
}
