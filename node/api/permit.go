package api

import (
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// permission is what a gRPC method asks of its caller. A method without one is
// refused.
type permission struct {
	// open: no credential is asked for.
	open bool
	// early: the method is served before the node is ready.
	early bool
	// endless: the call is a stream that ends when its client likes; the node's
	// stop doesn't wait for it.
	endless bool
	// check decides on the call's first message. It is set unless open is.
	check func(p iam.Principal, m any) error
}

// permissions has a row for every method that is registered, by its full name.
func permissions() map[string]permission {
	return map[string]permission{
		pb.BucketService_CreateBucket_FullMethodName: onBucket(iam.BucketCreate),
		pb.BucketService_GetBucket_FullMethodName:    onBucket(iam.BucketRead),
		pb.BucketService_ListBuckets_FullMethodName:  always(iam.BucketList),
		pb.BucketService_DeleteBucket_FullMethodName: onBucket(iam.BucketDelete),

		pb.BucketService_GetBucketUsage_FullMethodName: onBucket(iam.BucketRead),
		pb.BucketService_SetBucketQuota_FullMethodName: onBucket(iam.BucketQuota),

		pb.ObjectService_PutObject_FullMethodName:     {check: checkPut},
		pb.ObjectService_GetObject_FullMethodName:     onObject(iam.ObjectRead),
		pb.ObjectService_StatObject_FullMethodName:    onObject(iam.ObjectRead),
		pb.ObjectService_ListObjects_FullMethodName:   {check: checkList},
		pb.ObjectService_StreamObjects_FullMethodName: {check: checkList},
		pb.ObjectService_DeleteObject_FullMethodName:  onObject(iam.ObjectDelete),
		pb.ObjectService_DeleteObjects_FullMethodName: {check: checkDeleteMany},
		pb.ObjectService_CopyObject_FullMethodName:    {check: checkCopy},
		pb.ObjectService_MoveObject_FullMethodName:    {check: checkMove},

		pb.ClusterService_GetCluster_FullMethodName:         always(iam.ClusterRead),
		pb.ClusterService_GetCertificates_FullMethodName:    always(iam.ClusterRead),
		pb.ClusterService_JoinNode_FullMethodName:           always(iam.ClusterWrite),
		pb.ClusterService_LeaveNode_FullMethodName:          always(iam.ClusterWrite),
		pb.ClusterService_ReplaceNode_FullMethodName:        always(iam.ClusterWrite),
		pb.ClusterService_DrainNode_FullMethodName:          always(iam.ClusterWrite),
		pb.MetricsService_GetResourceMetrics_FullMethodName: always(iam.MetricsRead),
		pb.MetricsService_WatchMetrics_FullMethodName:       {endless: true, check: always(iam.MetricsRead).check},
		// It writes to the drives, but a bounded trifle: metrics.proto says why that is all.
		pb.MetricsService_Diagnose_FullMethodName: always(iam.ClusterRead),

		pb.StorageService_ListDrives_FullMethodName:    always(iam.ClusterRead),
		pb.StorageService_DrainDrive_FullMethodName:    always(iam.ClusterWrite),
		pb.StorageService_ReplaceDrive_FullMethodName:  always(iam.ClusterWrite),
		pb.StorageService_ListPools_FullMethodName:     always(iam.ClusterRead),
		pb.StorageService_DrainPool_FullMethodName:     always(iam.ClusterWrite),
		pb.StorageService_Rebalance_FullMethodName:     always(iam.ClusterWrite),
		pb.StorageService_GetHealStatus_FullMethodName: always(iam.ClusterRead),
		pb.StorageService_StartHeal_FullMethodName:     always(iam.ClusterWrite),

		pb.IAMService_WhoAmI_FullMethodName:     always(iam.IAMSelf),
		pb.IAMService_IssueToken_FullMethodName: always(iam.IAMSelfToken),
		pb.IAMService_CreateUser_FullMethodName: always(iam.IAMWrite),
		pb.IAMService_GetUser_FullMethodName:    always(iam.IAMRead),
		pb.IAMService_ListUsers_FullMethodName:  always(iam.IAMRead),
		pb.IAMService_UpdateUser_FullMethodName: always(iam.IAMWrite),
		pb.IAMService_DeleteUser_FullMethodName: always(iam.IAMWrite),
		pb.IAMService_CreateKey_FullMethodName:  {check: checkCreateKey},
		pb.IAMService_ListKeys_FullMethodName:   {check: checkListKeys},
		// Whose the key is decides the service, which finds it: iamService.findKey.
		pb.IAMService_GetKey_FullMethodName:    always(iam.IAMSelf),
		pb.IAMService_UpdateKey_FullMethodName: either(iam.IAMWrite, iam.IAMSelfKeys),
		pb.IAMService_DeleteKey_FullMethodName: either(iam.IAMWrite, iam.IAMSelfKeys),

		pb.DiagnosticsService_WatchCalls_FullMethodName: {endless: true, check: always(iam.ClusterWrite).check},
		pb.DiagnosticsService_WatchLogs_FullMethodName:  {endless: true, check: always(iam.ClusterWrite).check},

		healthpb.Health_Check_FullMethodName: {open: true, early: true},
		healthpb.Health_List_FullMethodName:  {open: true, early: true},
		healthpb.Health_Watch_FullMethodName: {open: true, early: true, endless: true},

		reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName:      {early: true, endless: true, check: always(iam.APIRead).check},
		reflectionalphapb.ServerReflection_ServerReflectionInfo_FullMethodName: {early: true, endless: true, check: always(iam.APIRead).check},
	}
}

// always is for actions on nothing in particular.
func always(a iam.Action) permission {
	return permission{check: func(p iam.Principal, _ any) error { return iam.Authorize(p, a, "", "") }}
}

// either is for actions on nothing in particular of which one is enough.
func either(a, b iam.Action) permission {
	return permission{check: func(p iam.Principal, _ any) error { return authorizeEither(p, a, b) }}
}

// authorizeEither says of a that it isn't allowed where neither is.
func authorizeEither(p iam.Principal, a, b iam.Action) error {
	if iam.Allowed(p, b, "", "") {
		return nil
	}
	return iam.Authorize(p, a, "", "")
}

func onBucket(a iam.Action) permission {
	return permission{check: func(p iam.Principal, m any) error {
		return iam.Authorize(p, a, m.(interface{ GetBucket() string }).GetBucket(), "")
	}}
}

func onObject(a iam.Action) permission {
	return permission{check: func(p iam.Principal, m any) error {
		o := m.(interface {
			GetBucket() string
			GetKey() string
		})
		return iam.Authorize(p, a, o.GetBucket(), o.GetKey())
	}}
}

// checkPut is about the header, which has to come first.
func checkPut(p iam.Principal, m any) error {
	h := m.(*pb.PutObjectRequest).GetHeader()
	if h == nil {
		return fault.New(fault.InvalidArgument, "header", "must be the first message")
	}
	return iam.Authorize(p, iam.ObjectWrite, h.GetBucket(), h.GetKey())
}

// listed is what the requests for a list have.
type listed interface {
	GetBucket() string
	GetPrefix() string
}

// checkList takes the prefix for the key: a list shows nothing beside it.
func checkList(p iam.Principal, m any) error {
	r := m.(listed)
	return iam.Authorize(p, iam.ObjectList, r.GetBucket(), r.GetPrefix())
}

// checkDeleteMany wants the permission for every key.
func checkDeleteMany(p iam.Principal, m any) error {
	r := m.(*pb.DeleteObjectsRequest)
	for _, key := range r.GetKeys() {
		if err := iam.Authorize(p, iam.ObjectDelete, r.GetBucket(), key); err != nil {
			return err
		}
	}
	if len(r.GetKeys()) == 0 { // an error, but for those who may know of the bucket
		return iam.Authorize(p, iam.ObjectDelete, r.GetBucket(), "")
	}
	return nil
}

// checkCopy wants to read the one and write the other.
func checkCopy(p iam.Principal, m any) error {
	r := m.(*pb.CopyObjectRequest)
	if err := iam.Authorize(p, iam.ObjectRead, sourceBucket(r), r.GetSourceKey()); err != nil {
		return err
	}
	return iam.Authorize(p, iam.ObjectWrite, r.GetBucket(), r.GetKey())
}

// checkMove wants to read, write and delete the one, and write the other: who
// may not read an object may not take it to where it can be read.
func checkMove(p iam.Principal, m any) error {
	r := m.(*pb.MoveObjectRequest)
	for _, action := range []iam.Action{iam.ObjectRead, iam.ObjectWrite, iam.ObjectDelete} {
		if err := iam.Authorize(p, action, sourceBucket(r), r.GetSourceKey()); err != nil {
			return err
		}
	}
	return iam.Authorize(p, iam.ObjectWrite, r.GetBucket(), r.GetKey())
}

// checkCreateKey wants an admin, but for service keys of the caller itself.
func checkCreateKey(p iam.Principal, m any) error {
	r := m.(*pb.CreateKeyRequest)
	if r.GetService() && (r.GetUser() == "" || r.GetUser() == p.User) {
		return authorizeEither(p, iam.IAMWrite, iam.IAMSelfKeys)
	}
	return iam.Authorize(p, iam.IAMWrite, "", "")
}

// checkListKeys wants an admin, but for the caller's own keys. Those have grants,
// which name buckets and prefixes: they are not for whoever has less than the user,
// a service key or a token.
func checkListKeys(p iam.Principal, m any) error {
	if user := m.(*pb.ListKeysRequest).GetUser(); user != "" && user == p.User {
		return authorizeEither(p, iam.IAMRead, iam.IAMSelfKeys)
	}
	return iam.Authorize(p, iam.IAMRead, "", "")
}
