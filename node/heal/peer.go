package heal

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=peer.go -o=peer_gen.go -tests=false -io=false

import (
	"context"
	"errors"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// The handlers 210 to 219 are this package's; an incompatible change is a new
// id.
const (
	idStatus    grid.HandlerID = 210
	idStart     grid.HandlerID = 211
	idRebalance grid.HandlerID = 212
	idReport    grid.HandlerID = 213
)

//msgp:limit arrays:1000 maps:0

// none is an empty request or answer.
type none struct{}

// rebalanceRequest has rebalancing begin, or end.
type rebalanceRequest struct {
	Start bool `msg:"s"`
}

// reportRequest tells of copies that were found to be bad.
type reportRequest struct {
	Items []reportItem `msg:"i"`
}

// reportItem is one of them.
type reportItem struct {
	ID    [16]byte `msg:"i"`
	Drive string   `msg:"d"`
	Why   string   `msg:"w"`
}

var (
	statusCall    = grid.NewSingle[none, Status](idStatus, "heal.status")
	startCall     = grid.NewSingle[StartRequest, none](idStart, "heal.start")
	rebalanceCall = grid.NewSingle[rebalanceRequest, none](idRebalance, "heal.rebalance")
	reportCall    = grid.NewSingle[reportRequest, none](idReport, "heal.report")
)

// servedAtOnce bounds the calls of each kind that are served at a time.
const servedAtOnce = 64

// register serves the calls at m. A node that doesn't coordinate says so: its
// caller looks for the one that does.
func (h *Healer) register(m *grid.Manager) error {
	few := func(g *grid.Handler) { g.MaxConcurrent = servedAtOnce }
	return errors.Join(
		statusCall.Register(m, served(h, func(t *term, _ *none) (*Status, error) { return t.status(), nil }), few),
		startCall.Register(m, served(h, func(t *term, req *StartRequest) (*none, error) { t.start(*req); return &none{}, nil }), few),
		rebalanceCall.Register(m, served(h, func(t *term, req *rebalanceRequest) (*none, error) {
			t.askRebalance(req.Start)
			return &none{}, nil
		}), few),
		reportCall.Register(m, served(h, func(t *term, req *reportRequest) (*none, error) {
			h.reports.add(req.Items...)
			return &none{}, nil
		}), few),
	)
}

// served has the term serve a call, and gives errors the form in which their
// kinds cross the grid.
func served[Req, Resp any](h *Healer, serve func(*term, *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(_ context.Context, req *Req) (*Resp, error) {
		t, err := h.current()
		if err != nil {
			return nil, control.ToWire(err)
		}
		resp, err := serve(t, req)
		if err != nil {
			return nil, control.ToWire(err)
		}
		return resp, nil
	}
}

// call makes a call to the node that coordinates.
func call[Req, Resp any](ctx context.Context, h *Healer, node string, do func(context.Context, *grid.Connection, *Req) (*Resp, error), req *Req) (*Resp, error) {
	var c *grid.Connection
	if h.o.Conn != nil {
		c = h.o.Conn(node)
	}
	if c == nil || c.State() != grid.StateConnected {
		return nil, fault.New(fault.Waiting, "healing", "is coordinated by node %s, which isn't connected", node)
	}
	resp, err := do(ctx, c, req)
	if err != nil {
		return nil, control.FromWire(err)
	}
	return resp, nil
}

// ask asks a node how healing goes.
func (h *Healer) ask(ctx context.Context, node string) (*Status, error) {
	return call(ctx, h, node, statusCall.Call, &none{})
}

const (
	forwardFor   = 10 * time.Second // for which somebody who coordinates is looked for
	forwardPause = 100 * time.Millisecond
)

// forward has the one who coordinates do something: this node, or another by a
// call. Where there is none for the moment, it is waited for.
func forward[Resp any](ctx context.Context, h *Healer, there func(context.Context, string) (*Resp, error), here func(*term) (*Resp, error)) (*Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardFor)
	defer cancel()
	for {
		var err error
		leader, self := h.o.Leader()
		switch {
		case self:
			var t *term
			if t, err = h.current(); err == nil {
				return here(t)
			}
		case leader == "":
			err = fault.New(fault.Waiting, "healing", "nobody is known to lead the index")
		default:
			var resp *Resp
			if resp, err = there(ctx, leader); err == nil {
				return resp, nil
			}
		}
		var refused *fault.Error
		if errors.As(err, &refused) && refused.Kind != fault.Waiting && refused.Kind != fault.Unavailable {
			return nil, err
		}
		if rest(ctx, forwardPause) != nil {
			return nil, fault.New(fault.Waiting, "healing", "can't be asked: %v", err)
		}
	}
}
