package node

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/audit"
	"github.com/gridloom/gridloom/node/iam"
)

// recheckEvery is how often what is open is looked at for a copy of users and
// keys that has grown too old, and for secrets that have changed.
const recheckEvery = time.Second

// auditFile is the audit log's name in the data directory.
const auditFile = "audit.log"

// openGate makes the gate before every door. It lets nobody in but the root key
// until Run has read who else there is.
func (n *Node) openGate(context.Context) error {
	n.gate = iam.NewGate(func() time.Duration {
		if c := n.agreed.Load(); c != nil {
			return c.SystemAge()
		}
		return math.MaxInt64
	})
	n.identitiesChanged = make(chan struct{}, 1)
	n.roots = slices.Clone(n.cfg.RootKeys())
	if err := n.gate.SetRoots(n.roots...); err != nil {
		return &ConfigError{Field: "RootKeys", Err: err}
	}
	return nil
}

// openAudit opens the audit log.
func (n *Node) openAudit(context.Context) (err error) {
	o := audit.Options{
		Node: n.cfg.Name, File: n.cfg.Audit.File, Level: n.cfg.Audit.Level, MaxBytes: n.cfg.Audit.MaxBytes, Keep: n.cfg.Audit.Keep,
		Failed: func(err error) { n.log.Error("the audit log can't be written", "error", err) },
	}
	if o.File == "" {
		o.File = filepath.Join(n.cfg.DataDir, auditFile)
	}
	if n.audit, err = audit.Open(o); err != nil {
		return &ConfigError{Field: "Audit.File", Err: err}
	}
	n.onClose(n.audit.Close)
	lost, err := n.telemetry.Meter().Int64ObservableCounter("gridloom.audit.lost",
		metric.WithUnit("{line}"), metric.WithDescription("Lines of the audit log that could not be written."))
	if err != nil {
		return err
	}
	_, err = n.telemetry.Meter().RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(lost, n.audit.Lost())
		return nil
	}, lost)
	return err
}

// changedIdentities is told that users or keys have changed.
func (n *Node) changedIdentities(*iam.Rows) {
	select {
	case n.identitiesChanged <- struct{}{}:
	default: // keepGate has yet to look at the last change
	}
}

// keepGate keeps the gate's users and keys those of the mesh, from when this
// node has first read them, and has what is open looked at again.
func (n *Node) keepGate(ctx context.Context) error {
	if n.control.WaitReady(ctx) != nil {
		return nil // form says so
	}
	n.gate.SetDeployment(n.control.Deployment())
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	told := ""
	for last := (*iam.Rows)(nil); ; {
		if rows := n.control.IAM(); rows != last {
			err := n.takeOver(rows)
			switch {
			case err == nil:
				last, told = rows, ""
			case len(rows.Boxes) > 0 && err.Error() != told:
				told = err.Error()
				n.log.Error("users and keys can't be read: nobody but the root key gets in", "error", err)
			}
		}
		n.gate.Recheck()
		select {
		case <-ctx.Done():
			return nil
		case <-n.identitiesChanged:
		case <-tick.C:
		}
	}
}

// takeOver gives the gate the users and keys. Where they can't be read the gate
// loses those that it had, among whom somebody may have been shut out since.
func (n *Node) takeOver(rows *iam.Rows) error {
	snapshot, err := n.openRows(rows)
	if err == nil || n.gate.Snapshot() != nil {
		n.gate.SetSnapshot(time.Now(), snapshot)
	}
	return err
}

func (n *Node) openRows(rows *iam.Rows) (*iam.Snapshot, error) {
	master, err := iam.OpenMaster(rows.Boxes, n.cfg.MeshSecrets())
	if err != nil {
		return nil, err
	}
	return iam.NewSnapshot(rows, master)
}

// still has the gate look once more at what a door has let in.
func (n *Node) still(p iam.Principal, recheck func(now iam.Principal) error) (why error) {
	return api.IdentityFault(n.gate.Still(p, recheck))
}

// follow has the gate look again at what a door has let in; its reasons are
// faults.
func (n *Node) follow(p iam.Principal, recheck func(now iam.Principal) error, cut func(why error)) (stop func()) {
	return n.gate.Follow(p, recheck, func(why error) { cut(api.IdentityFault(why)) })
}
