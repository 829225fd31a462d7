package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes. They are a promise to scripts.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2 // the command can't be run as it was given
	exitNotFound = 3 // the bucket or object isn't there
)

// usageError is an error of the one who gave the command: nothing was tried.
type usageError struct{ err error }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// notFoundError is "there is nothing of that name" where no call said so.
type notFoundError struct{ what string }

func (e *notFoundError) Error() string { return e.what }

// errInterrupted is what a signal has ended.
var errInterrupted = errors.New("interrupted")

// skippedError is something left out that nobody asked to have by name.
type skippedError struct{ what string }

func (e *skippedError) Error() string { return e.what }

// reported is an error whose parts have been told already, one a line.
type reported struct{ code int }

func (e *reported) Error() string { return "failed" }

// exitCode is what the process ends with for an error.
func exitCode(err error) int {
	var (
		usage    *usageError
		notFound *notFoundError
		told     *reported
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &told):
		return told.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &notFound), rpcCode(err) == codes.NotFound:
		return exitNotFound
	}
	return exitFailed
}

// rpcCode is the gRPC code of an error, or OK if it has none.
func rpcCode(err error) codes.Code {
	if st, ok := rpcStatus(err); ok {
		return st.Code()
	}
	return codes.OK
}

// rpcStatus finds a status that a node or the connection to it has returned.
func rpcStatus(err error) (*status.Status, bool) {
	var has interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &has) {
		return nil, false
	}
	return has.GRPCStatus(), true
}

// nodeReason is the kind of an error as a node named it; "" where the status
// was made on this side.
func nodeReason(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "gridloom" {
			return info.Reason
		}
	}
	return ""
}

// reason is the kind of an error: the node's own word for it, or one for what
// happened on this side.
func reason(err error) string {
	if st, ok := rpcStatus(err); ok {
		if own := nodeReason(st); own != "" {
			return own
		}
	}
	var (
		usage    *usageError
		notFound *notFoundError
		skipped  *skippedError
		gone     *noConnectionError
		silent   *silentError
	)
	switch {
	case errors.As(err, &usage):
		return "usage"
	case errors.As(err, &skipped):
		return "skipped"
	case errors.As(err, &gone):
		return "unavailable"
	case errors.As(err, &silent):
		return "deadline"
	case errors.Is(err, errChecksum):
		return "checksum_mismatch"
	case errors.As(err, &notFound):
		return "not_found"
	case errors.Is(err, errInterrupted):
		return "canceled"
	case errors.Is(err, fs.ErrNotExist):
		return "file_not_found"
	}
	return "failed"
}

// message is an error in the words its user is shown.
func message(err error) string {
	st, ok := rpcStatus(err)
	if !ok {
		return err.Error()
	}
	// grpc-go's own text is "rpc error: code = X desc = Y": Y is enough.
	return strings.Replace(err.Error(), st.Err().Error(), st.Message(), 1)
}

// problem is the JSON form of an error, on stderr.
type problem struct {
	Error struct {
		Command string `json:"command"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"error"`
}

// tell writes an error to stderr, as text or as JSON.
func tell(stderr io.Writer, asJSON bool, command string, err error) {
	if asJSON {
		var p problem
		p.Error.Command, p.Error.Reason, p.Error.Message = command, reason(err), message(err)
		_ = json.NewEncoder(stderr).Encode(p)
		return
	}
	prefix := strings.TrimSpace("gridloom " + command)
	fmt.Fprintf(stderr, "%s: %s\n", prefix, message(err))
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "%s --help shows how to use it.\n", prefix)
	}
}
