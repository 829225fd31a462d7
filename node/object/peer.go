package object

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=peer.go -o=peer_gen.go -tests=false -io=false

import (
	"context"
	"errors"
	"hash/crc32"
	"io"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// Between nodes, what is small goes over the grid: payload of at most
// GridMaxBytes in either direction, and everything that is no payload. The
// handlers 200 to 299 are this package's; an incompatible change is a new id.
const (
	idRead   grid.HandlerID = 200
	idWrite  grid.HandlerID = 201
	idRemove grid.HandlerID = 202
	// 203 was how much a node has free.
	idDrives grid.HandlerID = 204
	idCopy   grid.HandlerID = 205
	idCheck  grid.HandlerID = 206
)

// What one request holds at most.
const (
	removeMax = 1000 // payload files to remove
	copyMax   = 64   // payload files to copy
	checkMax  = 1000 // payload files to look at
)

//msgp:limit arrays:1000 maps:0
//msgp:clearomitted

// readRequest asks for a part of a payload.
type readRequest struct {
	Drive     string   `msg:"d"`
	ID        [16]byte `msg:"i"`
	SizeBytes int64    `msg:"s"` // of the whole payload, as the record has it
	CRC32C    uint32   `msg:"c"` // of the whole payload, as the record has it
	Offset    int64    `msg:"o"`
	Length    int64    `msg:"n"`           // 1 to GridMaxBytes
	Verify    bool     `msg:"v,omitempty"` // compare with the checksums first
	Hedge     bool     `msg:"h,omitempty"` // there is another copy: don't wait for a drive
}

// readResponse carries it.
type readResponse struct {
	Data []byte `msg:"b,zerocopy,limit=262144"`
}

// writeRequest carries a whole payload to a drive.
type writeRequest struct {
	Drive  string   `msg:"d"`
	ID     [16]byte `msg:"i"`
	Data   []byte   `msg:"b,zerocopy,limit=262144"`
	CRC32C uint32   `msg:"c"`
}

// writeResponse says what is durable.
type writeResponse struct {
	SizeBytes int64  `msg:"s"`
	CRC32C    uint32 `msg:"c"`
}

// removeRequest asks for payloads to be removed. Those that aren't there are
// no error; uploads of them are ended.
type removeRequest struct {
	Items []removeItem `msg:"i"`
	// Unfinished leaves what is there, and ends uploads without waiting for it.
	Unfinished bool `msg:"u,omitempty"`
}

// removeItem is one payload.
type removeItem struct {
	Drive string   `msg:"d"`
	ID    [16]byte `msg:"i"`
}

// removeResponse is empty: all are gone.
type removeResponse struct{}

// drivesRequest asks how a node's drives are.
type drivesRequest struct{}

// drivesResponse says it of those that are open.
type drivesResponse struct {
	Drives []driveReport `msg:"d"`
}

// driveReport is one drive.
type driveReport struct {
	ID    string `msg:"i"`
	State uint8  `msg:"s"` // a dataio.State
	Total int64  `msg:"t"` // bytes, as the following
	Used  int64  `msg:"u"`
	Free  int64  `msg:"f"`
}

// copyRequest asks a node to get payload from other drives onto one of its own.
type copyRequest struct {
	Drive string     `msg:"d"`
	Items []copyItem `msg:"i"` // at most copyMax
}

// copyItem is one payload, as its record has it.
type copyItem struct {
	ID        [16]byte `msg:"i"`
	SizeBytes int64    `msg:"s"`
	CRC32C    uint32   `msg:"c"`
	From      []string `msg:"f"`           // drives, best first
	Replace   bool     `msg:"r,omitempty"` // the drive has a bad copy
}

// copyResponse says what became of each item.
type copyResponse struct {
	Results []copyResult `msg:"r"` // in the order of the items
}

// copyResult is what became of one.
type copyResult struct {
	Code    uint16 `msg:"c,omitempty"` // 0: it is durable; else one more than the fault.Kind
	Subject string `msg:"s,omitempty"`
	Detail  string `msg:"d,omitempty"`
	Bytes   int64  `msg:"b,omitempty"` // moved
}

// checkRequest asks whether payload is on a drive, and is what was written.
type checkRequest struct {
	Drive  string      `msg:"d"`
	Items  []checkItem `msg:"i"` // at most checkMax
	Verify bool        `msg:"v,omitempty"`
	// BytesPerSecond bounds how fast payload is read for Verify; 0: not at all.
	BytesPerSecond int64 `msg:"r,omitempty"`
}

// checkItem is one payload, as its record has it.
type checkItem struct {
	ID        [16]byte `msg:"i"`
	SizeBytes int64    `msg:"s"`
	CRC32C    uint32   `msg:"c"`
}

// checkResponse says how far it came, and what was bad.
type checkResponse struct {
	Checked int       `msg:"n"` // so many of the items; the rest is to be asked again
	Bad     []badItem `msg:"b"`
}

// badItem is a payload that isn't as it should be.
type badItem struct {
	Index  int    `msg:"i"` // in checkRequest.Items
	Reason string `msg:"r"` // missing, size, corrupted, unreadable
	Detail string `msg:"d"`
}

var (
	readCall   = grid.NewSingle[readRequest, readResponse](idRead, "object.read")
	writeCall  = grid.NewSingle[writeRequest, writeResponse](idWrite, "object.write")
	removeCall = grid.NewSingle[removeRequest, removeResponse](idRemove, "object.remove")
	drivesCall = grid.NewSingle[drivesRequest, drivesResponse](idDrives, "object.drives")
	copyCall   = grid.NewSingle[copyRequest, copyResponse](idCopy, "object.copy")
	checkCall  = grid.NewSingle[checkRequest, checkResponse](idCheck, "object.check")
)

// Calls served at once, per kind: what a node does for its peers is bounded in
// memory by these times GridMaxBytes.
const (
	readsAtOnce   = 256
	writesAtOnce  = 256
	removesAtOnce = 32
	drivesAtOnce  = 64
	copiesAtOnce  = 32
	checksAtOnce  = 32
)

// register serves the calls at m.
func (s *Service) register(m *grid.Manager) error {
	atOnce := func(n int) func(*grid.Handler) {
		return func(h *grid.Handler) { h.MaxConcurrent = n }
	}
	return errors.Join(
		readCall.Register(m, served(s.serveRead), atOnce(readsAtOnce)),
		writeCall.Register(m, served(s.serveWrite), atOnce(writesAtOnce)),
		removeCall.Register(m, served(s.serveRemove), atOnce(removesAtOnce)),
		drivesCall.Register(m, served(s.serveDrives), atOnce(drivesAtOnce)),
		copyCall.Register(m, served(s.serveCopy), atOnce(copiesAtOnce)),
		checkCall.Register(m, served(s.serveCheck), atOnce(checksAtOnce)),
	)
}

// served gives a handler's errors the form in which their kinds cross the grid.
func served[Req, Resp any](h func(context.Context, *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		resp, err := h(ctx, req)
		if err != nil {
			return nil, control.ToWire(err)
		}
		return resp, nil
	}
}

func (s *Service) serveRead(ctx context.Context, req *readRequest) (*readResponse, error) {
	if req.Length < 1 || req.Length > GridMaxBytes {
		return nil, fault.New(fault.InvalidArgument, "length", "is %d; 1 to %d are allowed", req.Length, GridMaxBytes)
	}
	p := part{&control.Segment{ID: req.ID, SizeBytes: req.SizeBytes, CRC32C: req.CRC32C}, req.Offset, req.Length}
	how := manner{verify: req.Verify, hedge: req.Hedge, patience: s.o.WaitTimeout}
	f, err := s.openPart(ctx, payloadRef{req.Drive, req.ID}, p, how)
	if err != nil {
		return nil, err
	}
	defer f.close()
	data := make([]byte, 0, req.Length)
	for int64(len(data)) < req.Length {
		n, err := f.ready(ctx, req.Length-int64(len(data)), 0)
		if err != nil {
			return nil, err
		}
		data = data[:int64(len(data))+n]
		if _, err := io.ReadFull(f.reader(), data[int64(len(data))-n:]); err != nil {
			return nil, f.fault(f.short(err))
		}
		f.took(n)
	}
	return &readResponse{Data: data}, nil
}

// checkRange checks that n bytes at off are within size.
func checkRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fault.New(fault.RangeInvalid, "range", "is outside of the %d bytes there are", size)
	}
	return nil
}

func (s *Service) serveWrite(ctx context.Context, req *writeRequest) (*writeResponse, error) {
	ref := payloadRef{req.Drive, req.ID}
	if crc := crc32.Checksum(req.Data, castagnoli); crc != req.CRC32C {
		return nil, fault.New(fault.ChecksumMismatch, "payload "+ref.id.String(), "was damaged on its way to node %s", s.o.Self)
	}
	d, err := s.awaitDrive(ctx, ref.drive)
	if err != nil {
		return nil, err
	}
	w, err := s.writeOwn(ctx, d, ref.id, req.Data)
	if err != nil {
		return nil, err
	}
	return &writeResponse{SizeBytes: w.SizeBytes, CRC32C: w.CRC32C}, nil
}

// removeUnheard removes a payload that was committed for nobody.
func (s *Service) removeUnheard(ctx context.Context, d *dataio.Drive, ref payloadRef) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	if err := d.Remove(ctx, ref.id); err != nil && !errors.Is(err, dataio.ErrNotFound) {
		s.leftBehind([]placed{{s.o.Self, ref}}, err)
	}
}

func (s *Service) serveRemove(ctx context.Context, req *removeRequest) (*removeResponse, error) {
	refs := make([]payloadRef, len(req.Items))
	for i, item := range req.Items {
		refs[i] = payloadRef{item.Drive, item.ID}
	}
	if req.Unfinished {
		for _, ref := range refs {
			if in := s.incomingOf(ref); in != nil {
				in.cancel()
			}
		}
		return &removeResponse{}, nil
	}
	if err := s.removeOwn(ctx, refs); err != nil {
		return nil, err
	}
	return &removeResponse{}, nil
}
