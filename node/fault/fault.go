// Package fault holds the kinds of errors that Gridloom's users can see.
//
// A kind is a promise: it has one reason, one gRPC code and one HTTP status,
// in the one table below, whichever door the request came through. Kinds cross
// the grid as numbers, so they are append-only. An error is made where it is
// noticed, with the thing it is about as its subject, and travels unchanged to
// the door, which turns it into a gRPC status or a problem+json body.
//
// Wrapping keeps the kind: KindOf finds the outermost *Error in a chain, and
// understands the context's errors; everything else is Internal.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
)

// Kind classifies an error. The numbers cross the wire: append only.
type Kind uint16

// The kinds. Internal is the zero value, so that an unclassified error is one.
const (
	Internal Kind = iota
	InvalidArgument
	ChecksumMismatch
	IncompleteBody
	Unauthenticated
	PermissionDenied
	BucketNotFound
	ObjectNotFound
	AlreadyExists
	BucketNotEmpty
	Conflict
	PreconditionFailed
	NotModified
	TooLarge
	RangeInvalid
	WrongMesh
	QuotaExceeded
	Overloaded
	Corrupted
	Waiting
	Unavailable
	Deadline
	NoSpace
	Canceled
	NotFound
	Unimplemented
	MethodNotAllowed
	LengthRequired
	numKinds
)

// row is what a kind means outside.
type row struct {
	reason string
	code   codes.Code
	status int
}

// statusClientClosed is nginx's 499: the client went away, nobody reads this.
const statusClientClosed = 499

var table = [numKinds]row{
	Internal:           {"internal", codes.Internal, http.StatusInternalServerError},
	InvalidArgument:    {"invalid_argument", codes.InvalidArgument, http.StatusBadRequest},
	ChecksumMismatch:   {"checksum_mismatch", codes.InvalidArgument, http.StatusBadRequest},
	IncompleteBody:     {"incomplete_body", codes.InvalidArgument, http.StatusBadRequest},
	Unauthenticated:    {"unauthenticated", codes.Unauthenticated, http.StatusUnauthorized},
	PermissionDenied:   {"permission_denied", codes.PermissionDenied, http.StatusForbidden},
	BucketNotFound:     {"bucket_not_found", codes.NotFound, http.StatusNotFound},
	ObjectNotFound:     {"object_not_found", codes.NotFound, http.StatusNotFound},
	AlreadyExists:      {"already_exists", codes.AlreadyExists, http.StatusConflict},
	BucketNotEmpty:     {"bucket_not_empty", codes.FailedPrecondition, http.StatusConflict},
	Conflict:           {"conflict", codes.Aborted, http.StatusConflict},
	PreconditionFailed: {"precondition_failed", codes.FailedPrecondition, http.StatusPreconditionFailed},
	NotModified:        {"not_modified", codes.FailedPrecondition, http.StatusNotModified},
	TooLarge:           {"too_large", codes.InvalidArgument, http.StatusRequestEntityTooLarge},
	RangeInvalid:       {"range_invalid", codes.OutOfRange, http.StatusRequestedRangeNotSatisfiable},
	WrongMesh:          {"wrong_mesh", codes.FailedPrecondition, http.StatusMisdirectedRequest},
	QuotaExceeded:      {"quota_exceeded", codes.ResourceExhausted, http.StatusTooManyRequests},
	Overloaded:         {"overloaded", codes.ResourceExhausted, http.StatusTooManyRequests},
	Corrupted:          {"corrupted", codes.DataLoss, http.StatusInternalServerError},
	Waiting:            {"waiting", codes.Unavailable, http.StatusServiceUnavailable},
	Unavailable:        {"unavailable", codes.Unavailable, http.StatusServiceUnavailable},
	Deadline:           {"deadline", codes.DeadlineExceeded, http.StatusGatewayTimeout},
	NoSpace:            {"no_space", codes.ResourceExhausted, http.StatusInsufficientStorage},
	Canceled:           {"canceled", codes.Canceled, statusClientClosed},
	NotFound:           {"not_found", codes.NotFound, http.StatusNotFound},
	Unimplemented:      {"unimplemented", codes.Unimplemented, http.StatusNotImplemented},
	MethodNotAllowed:   {"method_not_allowed", codes.Unimplemented, http.StatusMethodNotAllowed},
	LengthRequired:     {"length_required", codes.InvalidArgument, http.StatusLengthRequired},
}

// row returns the kind's row. A kind from a newer peer is Internal here.
func (k Kind) row() row {
	if k >= numKinds {
		k = Internal
	}
	return table[k]
}

// Reason is the kind's stable name: ErrorInfo.reason and problem+json's type.
func (k Kind) Reason() string { return k.row().reason }

// Code is the gRPC code of the kind.
func (k Kind) Code() codes.Code { return k.row().code }

// Status is the HTTP status of the kind.
func (k Kind) Status() int { return k.row().status }

// String is the reason.
func (k Kind) String() string { return k.Reason() }

// Parse returns the kind of a reason, and whether there is one.
func Parse(reason string) (Kind, bool) {
	for k, r := range table {
		if r.reason == reason {
			return Kind(k), true
		}
	}
	return Internal, false
}

// Error is an error of a kind about a subject.
type Error struct {
	Kind    Kind
	Subject string        // what it is about: a field, "bucket photos", "node b"
	Detail  string        // what is wrong with it, without the subject
	Retry   time.Duration // when trying again may help; 0 is unknown
	Err     error         // cause, if any: for logs and errors.Is
}

// New makes an error: fault.New(fault.InvalidArgument, "key", "is empty").
func New(k Kind, subject, format string, args ...any) *Error {
	return &Error{Kind: k, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

// Wrap makes an error of a kind from a cause. It returns nil for a nil cause,
// and the cause itself where that has a kind already.
func Wrap(k Kind, subject string, err error) error {
	if err == nil {
		return nil
	}
	var fe *Error
	if errors.As(err, &fe) {
		return err
	}
	return &Error{Kind: k, Subject: subject, Detail: err.Error(), Err: err}
}

// Error is "subject: detail", which is what a user is shown.
func (e *Error) Error() string {
	switch {
	case e.Subject == "" && e.Detail == "":
		return e.Kind.Reason()
	case e.Subject == "":
		return e.Detail
	case e.Detail == "":
		return e.Subject + ": " + e.Kind.Reason()
	}
	return e.Subject + ": " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of err. An error of no kind is Internal; the
// context's errors are Deadline and Canceled.
func KindOf(err error) Kind {
	if err == nil {
		return Internal // and nothing is allocated to find that out
	}
	var fe *Error
	switch {
	case errors.As(err, &fe):
		return fe.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// From returns err as an *Error, never nil for a non-nil err. The text of an
// error without a kind is not shown outside, as it may name things that are
// none of the caller's business: it stays in Err.
func From(err error) *Error {
	var fe *Error
	if errors.As(err, &fe) {
		return fe
	}
	k := KindOf(err)
	e := &Error{Kind: k, Err: err}
	switch k {
	case Deadline:
		e.Detail = "the deadline ended before the answer was ready"
	case Canceled:
		e.Detail = "the caller went away"
	default:
		e.Detail = "internal error; the node's log has the cause"
	}
	return e
}
