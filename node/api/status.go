package api

import (
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gridloom/gridloom/node/fault"
)

// errorDomain is ErrorInfo.domain of every error that is Gridloom's own.
const errorDomain = "gridloom"

// statusOf is the one map from errors to gRPC statuses: the kind's code, the
// text a user is shown, ErrorInfo with the kind's reason and, as metadata
// "subject", what it is about, and RetryInfo where trying again may help. A
// status that grpc itself made is left as it is.
func statusOf(err error) error {
	if err == nil || isStatus(err) {
		return err
	}
	fe := fault.From(err)
	info := &errdetails.ErrorInfo{Reason: fe.Kind.Reason(), Domain: errorDomain}
	if fe.Subject != "" {
		info.Metadata = map[string]string{"subject": strings.ToValidUTF8(fe.Subject, "\uFFFD")}
	}
	details := []protoadapt.MessageV1{info}
	if wait := fe.RetryAfter(); wait > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	plain := status.New(fe.Kind.Code(), strings.ToValidUTF8(fe.Error(), "\uFFFD"))
	detailed, detailErr := plain.WithDetails(details...)
	if detailErr != nil {
		return plain.Err()
	}
	return detailed.Err()
}

// isStatus says whether err comes from grpc and has no kind of ours.
func isStatus(err error) bool {
	var fe *fault.Error
	if errors.As(err, &fe) {
		return false
	}
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}
