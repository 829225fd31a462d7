package control

import (
	"errors"
	"slices"

	"github.com/gridloom/gridloom/node/fault"
)

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=outcome.go -o=outcome_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// outcome is what a command came to, in the form that is remembered for
// retries and that crosses the wire. It holds nothing that the command holds
// already: with the command it makes the Result.
type outcome struct {
	Refused bool   `msg:"no,omitempty"`
	Kind    uint16 `msg:"k,omitempty"` // of the refusal; a fault.Kind
	Subject string `msg:"s,omitempty"`
	Detail  string `msg:"d,omitempty"`

	LogTime int64   `msg:"t"`
	Epoch   uint64  `msg:"e"`
	Bucket  *Bucket `msg:"b,omitempty"`
	Fates   []byte  `msg:"f,omitempty"` // DeleteRecords: a fate for every key; Recopy: one for every entry

	Replaced bool `msg:"rp,omitempty"` // PutRecord, MoveRecord: there was a record of that key
	// Moved is the record that a MoveRecord has moved, as it is at its target,
	// without its payload: the command doesn't have it.
	Moved    *Record `msg:"mv,omitempty"`
	Revision uint64  `msg:"rv,omitempty"` // of a user, a key or the boxes, after a change of it
}

// What became of a key of DeleteRecords.
const (
	fateMissing = iota // there was no record
	fateDeleted
	fateLeft // not looked at: the command had grown too large
)

// refusal makes an outcome of err where that is a fault, and tells whether it
// is. Everything else is the store's failure.
func refusal(err error) (*outcome, bool) {
	var fe *fault.Error
	if !errors.As(err, &fe) {
		return nil, false
	}
	return &outcome{Refused: true, Kind: uint16(fe.Kind), Subject: fe.Subject, Detail: fe.Detail}, true
}

// passes tells whether an outcome decides nothing: the command was led here by
// an old slot table. It may come again, and is not remembered.
func (o *outcome) passes() bool { return o.Refused && fault.Kind(o.Kind) == fault.Waiting }

// errRefused is the cause of every error that is a command's outcome.
var errRefused = errors.New("the index has decided so")

// Refused tells whether err of Propose is what the command came to: the index
// has applied it as a refusal, so neither it nor a retry will ever change
// anything. Another error, of whatever kind, is about the way to the index:
// it says nothing about an earlier try of the same command.
func Refused(err error) bool { return errors.Is(err, errRefused) }

// result makes the Result of cmd, or the error of its refusal. rest is a command
// for what it didn't come to, nil where that is nothing.
func (o *outcome) result(cmd *Command) (res *Result, rest *Command, err error) {
	if o.Refused {
		return nil, nil, &fault.Error{Kind: fault.Kind(o.Kind), Subject: o.Subject, Detail: o.Detail, Err: errRefused}
	}
	res = &Result{LogTime: o.LogTime, Epoch: o.Epoch, Bucket: o.Bucket, Revision: o.Revision}
	switch {
	case cmd.PutRecord != nil:
		rec := stored(&cmd.PutRecord.Record, o.LogTime)
		res.Record, res.Replaced = &rec, o.Replaced
	case cmd.MoveRecord != nil:
		if o.Moved == nil {
			return nil, nil, fault.New(fault.Internal, "index", "answered for a move without its record")
		}
		res.Record, res.Replaced = o.Moved, o.Replaced
	case cmd.DeleteRecords != nil:
		rest, err = o.deleted(cmd.DeleteRecords, res)
	case cmd.Recopy != nil:
		rest, err = o.recopied(cmd.Recopy, res)
	}
	if err != nil {
		return nil, nil, err
	}
	return res, rest, nil
}

func (o *outcome) deleted(c *DeleteRecords, res *Result) (rest *Command, err error) {
	if len(o.Fates) != len(c.Keys) {
		return nil, fault.New(fault.Internal, "index", "answered for %d keys of %d", len(o.Fates), len(c.Keys))
	}
	var left []string
	for i, fate := range o.Fates {
		switch fate {
		case fateDeleted:
			res.Deleted = append(res.Deleted, c.Keys[i])
		case fateMissing:
			res.Missing = append(res.Missing, c.Keys[i])
		default:
			left = append(left, c.Keys[i])
		}
	}
	if len(left) > 0 {
		rest = complete(&Command{DeleteRecords: &DeleteRecords{Bucket: c.Bucket, BucketID: c.BucketID, Keys: left}})
	}
	return rest, nil
}

func (o *outcome) recopied(c *Recopy, res *Result) (rest *Command, err error) {
	if len(o.Fates) != len(c.Entries) {
		return nil, fault.New(fault.Internal, "index", "answered for %d entries of %d", len(o.Fates), len(c.Entries))
	}
	var left []CopyChange
	res.Fates = make([]CopyFate, len(o.Fates))
	for i, fate := range o.Fates {
		if res.Fates[i] = CopyFate(fate); res.Fates[i] >= copyLeft {
			res.Fates[i] = copyLeft
			left = append(left, c.Entries[i])
		}
	}
	if len(left) > 0 {
		rest = complete(&Command{Recopy: &Recopy{Entries: left, Birth: c.Birth}})
	}
	return rest, nil
}

// add completes a result by that of the rest.
func (r *Result) add(more *Result) {
	r.LogTime, r.Epoch = more.LogTime, more.Epoch
	r.Deleted = append(r.Deleted, more.Deleted...)
	r.Missing = append(r.Missing, more.Missing...)
	next := 0
	for i, fate := range r.Fates {
		if fate == copyLeft && next < len(more.Fates) {
			r.Fates[i] = more.Fates[next]
			next++
		}
	}
}

// stored is a record as apply writes it: of this version, with its log time,
// and with nothing that is empty but not nil, so that its encoding doesn't
// depend on the way it came.
func stored(r *Record, logTime int64) Record {
	s := *r
	s.Version = RecordVersion
	s.LogTime = logTime
	s.SHA256 = nilIfEmpty(s.SHA256)
	s.Inline = nilIfEmpty(s.Inline)
	s.Segments = nilIfEmpty(s.Segments)
	if len(s.Metadata) == 0 {
		s.Metadata = nil
	}
	if len(s.Tags) == 0 {
		s.Tags = nil
	}
	return s
}

func nilIfEmpty[S ~[]E, E any](s S) S {
	if len(s) == 0 {
		return nil
	}
	return slices.Clip(s)
}
