package node

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/node/object"
	"github.com/gridloom/gridloom/observability"
)

// ListenerConfig says where to listen and with what certificate.
type ListenerConfig struct {
	// Addr is "host:port"; port 0 takes a free one.
	Addr string
	// Listener is used instead of Addr where it is set: a caller that must
	// know its port before the node exists opens it itself. The node closes it.
	Listener net.Listener
	// Insecure allows a listener off loopback without a certificate.
	Insecure bool
	// Auto has the node make a certificate, with the authority that follows from
	// the mesh secret. It is instead of CertFile and KeyFile.
	Auto bool
	// CertFile and KeyFile are PEM. Both or neither. They are read again when
	// they change, and so is CAFile.
	CertFile, KeyFile string
	// CAFile is PEM. Clients may present a certificate that one of these
	// authorities signed; peers must, in both directions, and it must be for
	// their name. With Auto the peers' authority is the mesh's own.
	CAFile string
}

// TLS reports whether the listener has a certificate.
func (l ListenerConfig) TLS() bool { return l.Auto || l.CertFile != "" }

// Peer is a founding node.
type Peer struct {
	Name string
	URL  string // base URL of its peer listener: http://host:port or https://host:port
}

// Config is all that a node is told. There is no other input: no environment,
// no globals.
type Config struct {
	Name    string   // identity of the node: [a-z0-9]([a-z0-9-]*[a-z0-9])?, at most 63 bytes
	DataDir string   // control state and identity
	Drives  []string // directories for payload, at least one

	// Pool is the pool that the node's drives are in; empty: "default". Zone is
	// what copies are kept apart by; empty: the node is a zone of its own. Both
	// are written like node names.
	Pool, Zone string

	GRPC, HTTP, Peer ListenerConfig

	// Peers are the founding nodes, this one among them. Empty: it is alone.
	Peers []Peer

	// CertificateNames are further DNS names and IP addresses by which clients
	// know this node, for the certificates that it makes.
	CertificateNames []string

	// RootKeys and MeshSecrets are asked again and again, so that both can be
	// changed while the node runs: they must be quick, and what they return is
	// not to be changed. All root keys are accepted. Of the mesh secrets, 32
	// bytes each, the first proves and all verify.
	RootKeys    func() []iam.Credential
	MeshSecrets func() [][]byte

	OTLP observability.OTLP // what telemetry is pushed where; its zero value pushes nothing
	// MetricsBuckets are measured each by itself, at most 32: only their metrics
	// have the label bucket.
	MetricsBuckets []string
	// Propagators are the forms of trace context that clients' requests are read
	// for: see observability.Options.
	Propagators  []string
	ReserveBytes int64 // space kept free on each drive; 0 is dataio's default

	Heal   HealConfig
	Audit  AuditConfig
	Limits Limits
	CORS   CORSConfig

	// Host samples the machine. Nodes in one process share one; nil makes one.
	Host *observability.Host

	Version string // of the program, for the cluster's description and telemetry
}

// HealConfig says how the copies of payload are kept. It counts on the node that
// coordinates that, which may be any: it should be the same on all.
type HealConfig struct {
	After          time.Duration // a drive that isn't well for so long counts as lost; 0: 15 min
	BytesPerSecond int64         // copied and checked on request; 0: 256 MiB
	ScrubPeriod    time.Duration // in which everything is read and compared once; 0: 14 days
}

// AuditConfig says what record is kept of requests. Its zero value keeps one of
// changes and of what was refused, in the data directory.
type AuditConfig struct {
	File     string      // empty: audit.log in the data directory
	Level    audit.Level // empty: audit.Changes
	MaxBytes int64       // of a file before it is put aside; 0: 64 MiB
	Keep     int         // files that were put aside; 0: 10
}

// ConfigError names the field of Config that is wrong: "HTTP.CertFile".
type ConfigError struct {
	Field string
	Err   error
}

// Error implements error.
func (e *ConfigError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *ConfigError) Unwrap() error { return e.Err }

func badConfig(field, format string, args ...any) error {
	return &ConfigError{Field: field, Err: fmt.Errorf(format, args...)}
}

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate reports the first field that is wrong, as a *ConfigError. It reads
// nothing but the struct.
func (c *Config) Validate() error {
	if !nodeName.MatchString(c.Name) {
		return badConfig("Name", "%q is not a node name: 1 to 63 of a-z, 0-9 and hyphens, with no hyphen at either end", c.Name)
	}
	if c.DataDir == "" {
		return badConfig("DataDir", "is empty")
	}
	if len(c.Drives) == 0 {
		return badConfig("Drives", "a node needs at least one drive")
	}
	for i, d := range c.Drives {
		if d == "" {
			return badConfig("Drives", "the path of drive %d is empty", i+1)
		}
		if slices.Contains(c.Drives[:i], d) {
			return badConfig("Drives", "%s is named twice", d)
		}
	}
	for _, name := range []struct{ field, value string }{{"Pool", c.Pool}, {"Zone", c.Zone}} {
		if name.value != "" && !nodeName.MatchString(name.value) {
			return badConfig(name.field, "%q is no such name: 1 to 63 of a-z, 0-9 and hyphens, with no hyphen at either end", name.value)
		}
	}
	for _, l := range []struct {
		field string
		cfg   *ListenerConfig
	}{{"GRPC", &c.GRPC}, {"HTTP", &c.HTTP}, {"Peer", &c.Peer}} {
		if err := l.cfg.validate(l.field); err != nil {
			return err
		}
	}
	if c.RootKeys == nil || len(c.RootKeys()) == 0 || slices.ContainsFunc(c.RootKeys(), iam.Credential.IsZero) {
		return badConfig("RootKeys", "is missing: a node is closed by default")
	}
	if c.MeshSecrets == nil || len(c.MeshSecrets()) == 0 {
		return badConfig("MeshSecrets", "is missing: peers prove that they belong to the mesh with it")
	}
	if c.Audit.Level != "" {
		if _, err := audit.ParseLevel(string(c.Audit.Level)); err != nil {
			return &ConfigError{Field: "Audit.Level", Err: err}
		}
	}
	if err := c.Heal.validate(); err != nil {
		return err
	}
	if err := c.validateMetrics(); err != nil {
		return err
	}
	if c.ReserveBytes < 0 {
		return badConfig("ReserveBytes", "%d is negative", c.ReserveBytes)
	}
	if err := c.Limits.validate(); err != nil {
		return err
	}
	if err := c.CORS.validate(); err != nil {
		return err
	}
	if err := observability.ValidatePropagators(c.Propagators); err != nil {
		return &ConfigError{Field: "Propagators", Err: err}
	}
	if err := c.OTLP.Validate(); err != nil {
		return &ConfigError{Field: "OTLP", Err: err}
	}
	return c.validatePeers()
}

func (c *Config) validateMetrics() error {
	if n := len(c.MetricsBuckets); n > observability.MaxBuckets {
		return badConfig("MetricsBuckets", "%d buckets are named; at most %d are measured by themselves", n, observability.MaxBuckets)
	}
	for _, name := range c.MetricsBuckets {
		if err := object.ValidateBucket(name); err != nil {
			return &ConfigError{Field: "MetricsBuckets", Err: err}
		}
	}
	return nil
}

func (h *HealConfig) validate() error {
	switch {
	case h.After < 0:
		return badConfig("Heal.After", "%s is negative", h.After)
	case h.BytesPerSecond < 0:
		return badConfig("Heal.BytesPerSecond", "%d is negative", h.BytesPerSecond)
	case h.ScrubPeriod < 0:
		return badConfig("Heal.ScrubPeriod", "%s is negative", h.ScrubPeriod)
	}
	return nil
}

func (l *ListenerConfig) validate(field string) error {
	if (l.CertFile == "") != (l.KeyFile == "") {
		return badConfig(field+".CertFile", "a certificate and its key are given together or not at all")
	}
	if l.Auto && l.CertFile != "" {
		return badConfig(field+".CertFile", "a certificate is given, and one is to be made: only one of the two")
	}
	if l.CAFile != "" && !l.TLS() {
		return badConfig(field+".CAFile", "client certificates need TLS: give a certificate and its key too")
	}
	if field == "Peer" && l.Auto && l.CAFile != "" {
		return badConfig(field+".CAFile", "peers' certificates are of the mesh's own authority, as this node's is; another is for certificates of its own")
	}
	if l.Listener != nil {
		return nil
	}
	host, port, err := net.SplitHostPort(l.Addr)
	if err != nil {
		return badConfig(field+".Addr", "%q is not host:port: %w", l.Addr, err)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return badConfig(field+".Addr", "%q: %w", l.Addr, err)
	}
	if !l.TLS() && !l.Insecure && !loopback(host) {
		return badConfig(field+".Addr", "%s is not a loopback address, and there is no certificate: whoever can see the traffic can read it, keys included; give a certificate, have one made, or say that this is meant", l.Addr)
	}
	return nil
}

// loopback reports whether only this machine can reach host. A name other than
// localhost may resolve to anything.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *Config) validatePeers() error {
	if len(c.Peers) == 0 {
		return nil
	}
	self := false
	names, urls := map[string]bool{}, map[string]string{}
	for _, p := range c.Peers {
		if !nodeName.MatchString(p.Name) {
			return badConfig("Peers", "%q is not a node name", p.Name)
		}
		if names[p.Name] {
			return badConfig("Peers", "%s is named twice", p.Name)
		}
		names[p.Name] = true
		u, err := url.Parse(p.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.Trim(u.Path, "/") != "" {
			return badConfig("Peers", "%s: %q is not a base URL like http://10.0.0.1:7402", p.Name, p.URL)
		}
		if other, ok := urls[u.Host]; ok {
			return badConfig("Peers", "%s and %s have the same address %s", other, p.Name, u.Host)
		}
		urls[u.Host] = p.Name
		if p.Name == c.Name {
			self = true
		}
		if tlsURL := u.Scheme == "https"; tlsURL != c.Peer.TLS() {
			return badConfig("Peers", "%s: %s: a mesh is plaintext or TLS as a whole, and this node's peer listener %s", p.Name, p.URL, map[bool]string{true: "has a certificate", false: "has none"}[c.Peer.TLS()])
		}
	}
	if !self {
		return badConfig("Name", "%s is not among the peers: %s", c.Name, strings.Join(sortedKeys(names), ", "))
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
