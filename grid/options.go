package grid

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// ManagerOptions configures a Manager. Zero values below Realm are the
// defaults given in parentheses.
type ManagerOptions struct {
	Local    string          // base URL of this server, "http://10.0.0.1:7402" or "https://…"
	Hosts    []string        // base URLs of all servers; Local may be among them
	Secrets  func() [][]byte // the first proves, all verify, so that a secret can be rotated
	TLS      *tls.Config     // for dialling; peers' names are checked against their certificates
	Insecure bool            // without Secrets and client certificates NewManager fails unless this is set
	Realm    func() string   // "" until agreed; once both ends have one they must be equal, live sessions included

	// CertificateName says for which name a host's certificate must be valid,
	// at both ends of a connection with it: for nodes whose names outlive their
	// addresses. host is as Hosts lists it. nil, or "": the host in its base
	// URL. It is asked for every TLS connection, from many goroutines at once.
	CertificateName func(host string) string

	Hooks Hooks

	// Dial replaces the TCP dialler, in tests for instance. addr is "host:port".
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	MaxMessage       int           // bytes; largest payload taken or sent (16 MiB)
	StreamWindow     int           // bytes unread per stream and direction (512 KiB)
	SessionWindow    int           // bytes of bulk on their way per session and direction; at least bandwidth × round trip for full speed (512 KiB)
	ReassemblyBudget int           // bytes of partly received calls and answers per session (64 MiB)
	InboundBudget    int           // bytes of requests being served per session (256 MiB)
	QueueLimit       int           // bytes waiting to be written per session (32 MiB)
	MaxConcurrent    int           // calls served at once per handler, where it sets none (131072)
	HandshakeTimeout time.Duration // from connect to ready (5 s)
	WriteTimeout     time.Duration // one batch, of at most 160 KiB, on its way to the kernel (10 s)
	PingInterval     time.Duration // silence before a ping (2 s)
	DeadAfter        time.Duration // silence before the session is dropped (10 s)
	BackoffMin       time.Duration // first bound of the reconnection jitter (50 ms)
	BackoffMax       time.Duration // last bound of it (5 s)
	CloseGrace       time.Duration // time for handlers to notice the end of their ctx in Close (1 s)
}

// fill sets the defaults and checks the rest.
func (o *ManagerOptions) fill() error {
	for _, d := range []struct {
		name  string
		value *int
		def   int
		low   int
	}{
		{"MaxMessage", &o.MaxMessage, 16 << 20, 1},
		{"StreamWindow", &o.StreamWindow, 512 << 10, 4 << 10},
		{"SessionWindow", &o.SessionWindow, 512 << 10, maxChunkLen},
		{"ReassemblyBudget", &o.ReassemblyBudget, max(64<<20, o.MaxMessage), o.MaxMessage},
		{"InboundBudget", &o.InboundBudget, max(256<<20, 2*o.MaxMessage), 1},
		{"QueueLimit", &o.QueueLimit, 32 << 20, 64 << 10},
		{"MaxConcurrent", &o.MaxConcurrent, 1 << 17, 1},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < d.low || *d.value > 1<<31-1 {
			return fmt.Errorf("grid: %s of %d is not within %d to 2 GiB", d.name, *d.value, d.low)
		}
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"HandshakeTimeout", &o.HandshakeTimeout, 5 * time.Second},
		{"WriteTimeout", &o.WriteTimeout, 10 * time.Second},
		{"PingInterval", &o.PingInterval, 2 * time.Second},
		{"DeadAfter", &o.DeadAfter, 10 * time.Second},
		{"BackoffMin", &o.BackoffMin, 50 * time.Millisecond},
		{"BackoffMax", &o.BackoffMax, 5 * time.Second},
		{"CloseGrace", &o.CloseGrace, time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < 0 {
			return fmt.Errorf("grid: %s is negative", d.name)
		}
	}
	if o.DeadAfter <= o.PingInterval {
		return fmt.Errorf("grid: DeadAfter (%v) must be longer than PingInterval (%v)", o.DeadAfter, o.PingInterval)
	}
	hasCertificate := o.TLS != nil && (len(o.TLS.Certificates) > 0 || o.TLS.GetClientCertificate != nil)
	if o.Secrets == nil && !hasCertificate && !o.Insecure {
		return errors.New("grid: neither Secrets nor client certificates: peers could not prove who they are (set Insecure to allow that)")
	}
	return nil
}

// certificateName is the name for which the certificate of h must be valid.
func (o *ManagerOptions) certificateName(h host) string {
	if o.CertificateName != nil {
		if name := o.CertificateName(h.name); name != "" {
			return name
		}
	}
	return h.domain
}

// host is a node's name taken apart.
type host struct {
	name   string // normalised base URL
	secure bool
	addr   string // host:port to dial
	domain string // host alone, for certificates unless CertificateName has another
}

// parseHost normalises a base URL: scheme and host in lower case, the port
// always there, no trailing slash.
func parseHost(raw string) (host, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return host{}, fmt.Errorf("grid: host %q: %w", raw, err)
	}
	var h host
	port := u.Port()
	switch strings.ToLower(u.Scheme) {
	case "http":
		port = cmp.Or(port, "80")
	case "https":
		h.secure = true
		port = cmp.Or(port, "443")
	default:
		return host{}, fmt.Errorf("grid: host %q: want http://host:port or https://host:port", raw)
	}
	h.domain = strings.ToLower(u.Hostname())
	if h.domain == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return host{}, fmt.Errorf("grid: host %q: want a base URL, without path, query or user", raw)
	}
	h.addr = net.JoinHostPort(h.domain, port)
	h.name = strings.ToLower(u.Scheme) + "://" + h.addr
	return h, nil
}
