package observability

import (
	"context"
	"net/http"

	"google.golang.org/grpc/codes"
)

// ErrorHeader is the field of an HTTP answer that has the kind of its error.
const ErrorHeader = "Gridloom-Error"

const kindInternal = "internal"

// SetError says what kind of error the request in ctx has failed with, for the
// label kind of gridloom.request.errors: a name from a fixed set. An HTTP answer
// that has ErrorHeader needs it not; what breaks an answer off in its middle
// does. Without either the kind is what the status stands for. The handler calls
// it from its own goroutine.
func SetError(ctx context.Context, kind string) {
	if q := requestFrom(ctx); q != nil {
		q.kind = kind
	}
}

// kindOfStatus is the kind of an error that nobody has named, by its HTTP status.
func kindOfStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthenticated"
	case http.StatusForbidden:
		return "permission_denied"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusMethodNotAllowed:
		return "method_not_allowed"
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return "deadline"
	case http.StatusConflict:
		return "conflict"
	case http.StatusPreconditionFailed:
		return "precondition_failed"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusRequestedRangeNotSatisfiable:
		return "range_invalid"
	case http.StatusMisdirectedRequest:
		return "wrong_mesh"
	case http.StatusTooManyRequests:
		return "overloaded"
	case statusClientClosed:
		return "canceled"
	case http.StatusNotImplemented:
		return "unimplemented"
	case http.StatusServiceUnavailable:
		return "unavailable"
	case http.StatusInsufficientStorage:
		return "no_space"
	}
	if status < http.StatusInternalServerError {
		return "invalid_argument"
	}
	return kindInternal
}

// kindOfCode is the same by gRPC's code.
func kindOfCode(code codes.Code) string {
	switch code {
	case codes.Canceled:
		return "canceled"
	case codes.InvalidArgument:
		return "invalid_argument"
	case codes.DeadlineExceeded:
		return "deadline"
	case codes.NotFound:
		return "not_found"
	case codes.AlreadyExists:
		return "already_exists"
	case codes.PermissionDenied:
		return "permission_denied"
	case codes.ResourceExhausted:
		return "overloaded"
	case codes.FailedPrecondition:
		return "precondition_failed"
	case codes.Aborted:
		return "conflict"
	case codes.OutOfRange:
		return "range_invalid"
	case codes.Unimplemented:
		return "unimplemented"
	case codes.Unavailable:
		return "unavailable"
	case codes.DataLoss:
		return "corrupted"
	case codes.Unauthenticated:
		return "unauthenticated"
	}
	return kindInternal
}
