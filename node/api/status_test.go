package api

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gridloom/gridloom/node/fault"
)

// checkStatus checks everything that a client is told about an error.
func checkStatus(t testing.TB, what string, err error, kind fault.Kind, subject string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != kind.Code() {
		t.Errorf("%s: %v, want code %v", what, err, kind.Code())
		return
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetReason() != kind.Reason() || info.GetDomain() != "gridloom" || info.GetMetadata()["subject"] != subject {
		t.Errorf("%s: %v has ErrorInfo %v, want reason %s about %q", what, err, info, kind.Reason(), subject)
	}
	passes := kind == fault.Waiting || kind == fault.Unavailable || kind == fault.Overloaded
	if passes != (retry.GetRetryDelay().AsDuration() > 0) {
		t.Errorf("%s: %v has RetryInfo %v", what, err, retry)
	}
}

func TestStatusOf(t *testing.T) {
	for k := fault.Internal; k <= fault.Unimplemented; k++ {
		checkStatus(t, k.Reason(), statusOf(fault.New(k, "thing", "is wrong")), k, "thing")
		checkStatus(t, k.Reason(), statusOf(fmt.Errorf("around: %w", fault.New(k, "thing", "is wrong"))), k, "thing")
	}
	checkStatus(t, "deadline", statusOf(context.DeadlineExceeded), fault.Deadline, "")
	checkStatus(t, "canceled", statusOf(context.Canceled), fault.Canceled, "")

	err := statusOf(errors.New("open /secret/path: broken"))
	checkStatus(t, "no kind", err, fault.Internal, "")
	if got := status.Convert(err).Message(); got != "internal error; the node's log has the cause" {
		t.Errorf("an error without a kind is told as %q", got)
	}
	err = statusOf(&fault.Error{Kind: fault.Waiting, Subject: "node b", Retry: 7 * time.Second})
	if got := status.Convert(err).Details()[1].(*errdetails.RetryInfo).GetRetryDelay().AsDuration(); got != 7*time.Second {
		t.Errorf("RetryInfo: %v", got)
	}
	checkStatus(t, "not UTF-8", statusOf(fault.New(fault.InvalidArgument, "a\xff", "is wrong")), fault.InvalidArgument, "a\uFFFD")
	if err := statusOf(nil); err != nil {
		t.Errorf("nil: %v", err)
	}
	own := status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
	if err := statusOf(own); err != own {
		t.Errorf("a status of grpc's became %v", err)
	}
}

// errorOf reads a client's error back into one of ours.
func errorOf(err error) error {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			kind, _ := fault.Parse(info.GetReason())
			return &fault.Error{Kind: kind, Subject: info.GetMetadata()["subject"]}
		}
	}
	return errors.New("no ErrorInfo")
}
