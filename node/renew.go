package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

// renewEvery is how late the node may learn of secrets, keys and certificates
// that have changed.
const renewEvery = time.Second

// An operator is warned of a certificate that has less than warnBefore left,
// once in warnEvery.
const (
	warnBefore = 7 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// CAFile is where a node keeps the certificates of the mesh's authorities for
// the clients on its machine, below its data directory.
func CAFile(dataDir string) string { return filepath.Join(dataDir, "tls", "ca.pem") }

// openCertificates makes the node's certificate, if one of its listeners is to
// show it.
func (n *Node) openCertificates(context.Context) (err error) {
	n.warned = map[string]time.Time{}
	if !n.cfg.GRPC.Auto && !n.cfg.HTTP.Auto && !n.cfg.Peer.Auto {
		return nil
	}
	n.certs, err = certs.NewMesh(certs.MeshOptions{Names: n.cfg.certificateNames(), Secrets: n.cfg.MeshSecrets, Logger: n.log})
	if err != nil {
		return &ConfigError{Field: "MeshSecrets", Err: err}
	}
	return nil
}

// publishAuthorities writes down what clients on this machine have to trust, or
// removes what they had to.
func (n *Node) publishAuthorities() error {
	name := CAFile(n.cfg.DataDir)
	if n.certs == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &ConfigError{Field: "DataDir", Err: err}
		}
		return nil
	}
	pem := n.certs.PEM()
	if bytes.Equal(pem, n.published) {
		return nil
	}
	if err := writeWhole(name, pem); err != nil {
		return &ConfigError{Field: "DataDir", Err: err}
	}
	n.published = pem
	return nil
}

// writeWhole writes a file that anyone may read, whole or not at all.
func writeWhole(name string, data []byte) error {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, filepath.Base(name)+".*.new")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // in vain when all went well
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), name)
}

// keepRenewing takes over secrets, root keys and certificates that have changed,
// until ctx ends.
func (n *Node) keepRenewing(ctx context.Context) error {
	var paths []string
	for _, l := range n.listeners() {
		if l.files != nil {
			paths = append(paths, l.files.Paths()...)
		}
	}
	failed := ""
	certs.Watch(ctx, paths, renewEvery, func() {
		err := n.renew(time.Now())
		switch {
		case err == nil:
			failed = ""
		case err.Error() != failed: // once, however often it is tried again
			failed = err.Error()
			n.log.Error("keys and certificates are not up to date", "error", err)
		}
	})
	return nil
}

// renew brings up to date what has changed. It runs in one goroutine at a time.
func (n *Node) renew(now time.Time) error {
	for _, l := range n.listeners() {
		if l.files != nil {
			l.files.Check(now)
		}
	}
	if roots := n.cfg.RootKeys(); !slices.EqualFunc(roots, n.roots, iam.Credential.Equal) {
		if err := n.gate.SetRoots(roots...); err != nil {
			return err
		}
		n.log.Info("the root keys have changed", "count", len(roots))
		n.roots = slices.Clone(roots)
	}
	for _, c := range n.certificates() {
		n.warn(c, now)
	}
	if n.certs == nil {
		return nil
	}
	return errors.Join(n.certs.Refresh(), n.publishAuthorities())
}

// warn says that a certificate is about to expire, or has.
func (n *Node) warn(c listenerCertificate, now time.Time) {
	left := c.NotAfter.Sub(now)
	key := c.listener + " " + c.Fingerprint
	if left >= warnBefore || now.Sub(n.warned[key]) < warnEvery {
		return
	}
	n.warned[key] = now
	text := fmt.Sprintf("a certificate expires in %.1f days", left.Hours()/24)
	if left < 0 {
		text = "a certificate has expired"
	}
	n.log.Warn(text, "listener", c.listener, "names", c.Names, "issuer", c.Issuer, "expires", c.NotAfter)
}

// listenerCertificate is a certificate with the listener that shows it.
type listenerCertificate struct {
	listener string
	certs.Info
}

func (n *Node) listeners() []*listener {
	return []*listener{n.grpcListener, n.httpListener, n.peerListener}
}

// certificates are those that the listeners show now.
func (n *Node) certificates() []listenerCertificate {
	var all []listenerCertificate
	for _, l := range n.listeners() {
		if l.own == nil {
			continue
		}
		if i, ok := l.own.Info(); ok {
			all = append(all, listenerCertificate{l.name, i})
		}
	}
	return all
}

// observeCertificates exports when the certificates expire.
func (n *Node) observeCertificates(o *observed) metric.Callback {
	left := o.seconds("gridloom.certificate.expiry", "Time until the certificate that a listener shows expires; less than 0 once it has.")
	when := o.seconds("gridloom.certificate.expiry.timestamp", "When the certificate that a listener shows expires, in seconds since 1970.")
	return func(_ context.Context, to metric.Observer) error {
		for _, c := range n.certificates() {
			to.ObserveFloat64(left, time.Until(c.NotAfter).Seconds(), labels("listener", c.listener))
			to.ObserveFloat64(when, float64(c.NotAfter.Unix()), labels("listener", c.listener, "issuer", c.Issuer))
		}
		return nil
	}
}
