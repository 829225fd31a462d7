package api

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// TestRoles: who may call what. Every method is in the table, and whoever is not
// named for it is refused.
func TestRoles(t *testing.T) {
	k := newKeeper(t, iam.Generate(iam.RootID))
	callers := map[string]iam.Principal{}
	for name, grant := range map[string]string{
		"none": "", "metrics": "metrics", "other": "admin:docs", "reader": "readonly:photos", "below": "readonly:photos/2026/",
		"writer": "readwrite:photos", "writes": "readwrite:photos/2026/", "owner": "admin:photos", "admin": "admin:*",
	} {
		callers[name] = k.principal(k.user(t, name, strings.Fields(grant)...))
	}
	admin := k.user(t, "adm", "admin:*")
	callers["service"] = k.principal(k.service(t, "adm", "readonly:photos"))        // less than its user
	callers["narrow"] = k.principal(k.token(t, admin, "readwrite:photos/2026/"))    // less than its key
	callers["wide"] = k.principal(k.service(t, "reader", "admin:*"))                // no more than its user
	callers["token"] = k.principal(k.token(t, k.user(t, "tok", "readonly:photos"))) // of a key
	const (
		all    = "none metrics other reader below writer writes owner admin service narrow wide token"
		keys   = "none metrics other reader below writer writes owner admin service wide" // those that have tokens
		firsts = "none metrics other reader below writer writes owner admin"              // those with keys of their own that aren't service keys
		reads  = "reader below writer writes owner admin service narrow wide token"
		writes = "writer writes owner admin narrow"
	)
	one := func(m any) []any { return []any{m} }
	left := permissions()
	for method, c := range map[string]struct {
		may      string
		messages []any
	}{
		pb.BucketService_CreateBucket_FullMethodName:   {"owner admin", one(&pb.CreateBucketRequest{Bucket: "photos"})},
		pb.BucketService_DeleteBucket_FullMethodName:   {"owner admin", one(&pb.DeleteBucketRequest{Bucket: "photos"})},
		pb.BucketService_GetBucket_FullMethodName:      {reads, one(&pb.GetBucketRequest{Bucket: "photos"})},
		pb.BucketService_GetBucketUsage_FullMethodName: {reads, one(&pb.GetBucketUsageRequest{Bucket: "photos"})},
		pb.BucketService_SetBucketQuota_FullMethodName: {"owner admin", one(&pb.SetBucketQuotaRequest{Bucket: "photos"})},
		pb.BucketService_ListBuckets_FullMethodName:    {reads + " other", one(&pb.ListBucketsRequest{})},
		pb.ObjectService_PutObject_FullMethodName: {writes, one(&pb.PutObjectRequest{
			Part: &pb.PutObjectRequest_Header{Header: &pb.PutObjectHeader{Bucket: "photos", Key: "2026/a"}}})},
		pb.ObjectService_GetObject_FullMethodName:     {reads, one(&pb.GetObjectRequest{Bucket: "photos", Key: "2026/a"})},
		pb.ObjectService_StatObject_FullMethodName:    {reads, one(&pb.StatObjectRequest{Bucket: "photos", Key: "2026/a"})},
		pb.ObjectService_ListObjects_FullMethodName:   {reads, one(&pb.ListObjectsRequest{Bucket: "photos", Prefix: "2026/"})},
		pb.ObjectService_StreamObjects_FullMethodName: {reads, one(&pb.StreamObjectsRequest{Bucket: "photos", Prefix: "2026/"})},
		pb.ObjectService_DeleteObject_FullMethodName:  {writes, one(&pb.DeleteObjectRequest{Bucket: "photos", Key: "2026/a"})},
		pb.ObjectService_DeleteObjects_FullMethodName: {writes, one(&pb.DeleteObjectsRequest{Bucket: "photos", Keys: []string{"2026/a", "2026/b"}})},
		pb.ObjectService_CopyObject_FullMethodName: {writes, []any{
			&pb.CopyObjectRequest{Bucket: "photos", Key: "2026/a", SourceKey: "2026/b"},
			&pb.CopyObjectRequest{Bucket: "photos", Key: "2026/a", SourceBucket: "photos", SourceKey: "2026/b"},
		}},
		pb.ObjectService_MoveObject_FullMethodName: {writes, []any{
			&pb.MoveObjectRequest{Bucket: "photos", Key: "2026/a", SourceKey: "2026/b"},
			&pb.MoveObjectRequest{Bucket: "photos", Key: "2026/a", SourceBucket: "photos", SourceKey: "2026/b"},
		}},

		pb.ClusterService_GetCluster_FullMethodName:         {"metrics admin", one(nil)},
		pb.ClusterService_GetCertificates_FullMethodName:    {"metrics admin", one(nil)},
		pb.ClusterService_JoinNode_FullMethodName:           {"admin", one(nil)},
		pb.ClusterService_LeaveNode_FullMethodName:          {"admin", one(nil)},
		pb.ClusterService_ReplaceNode_FullMethodName:        {"admin", one(nil)},
		pb.ClusterService_DrainNode_FullMethodName:          {"admin", one(nil)},
		pb.MetricsService_GetResourceMetrics_FullMethodName: {"metrics admin", one(nil)},
		pb.MetricsService_WatchMetrics_FullMethodName:       {"metrics admin", one(nil)},
		pb.MetricsService_Diagnose_FullMethodName:           {"metrics admin", one(nil)},
		pb.StorageService_ListDrives_FullMethodName:         {"metrics admin", one(nil)},
		pb.StorageService_DrainDrive_FullMethodName:         {"admin", one(nil)},
		pb.StorageService_ReplaceDrive_FullMethodName:       {"admin", one(nil)},
		pb.StorageService_ListPools_FullMethodName:          {"metrics admin", one(nil)},
		pb.StorageService_DrainPool_FullMethodName:          {"admin", one(nil)},
		pb.StorageService_Rebalance_FullMethodName:          {"admin", one(nil)},
		pb.StorageService_GetHealStatus_FullMethodName:      {"metrics admin", one(nil)},
		pb.StorageService_StartHeal_FullMethodName:          {"admin", one(nil)},

		pb.DiagnosticsService_WatchCalls_FullMethodName: {"admin", one(nil)},
		pb.DiagnosticsService_WatchLogs_FullMethodName:  {"admin", one(nil)},

		pb.IAMService_WhoAmI_FullMethodName:     {all, one(nil)},
		pb.IAMService_IssueToken_FullMethodName: {keys, one(nil)},
		pb.IAMService_CreateUser_FullMethodName: {"admin", one(nil)},
		pb.IAMService_GetUser_FullMethodName:    {"admin", one(nil)},
		pb.IAMService_ListUsers_FullMethodName:  {"admin", one(nil)},
		pb.IAMService_UpdateUser_FullMethodName: {"admin", one(nil)},
		pb.IAMService_DeleteUser_FullMethodName: {"admin", one(nil)},
		pb.IAMService_CreateKey_FullMethodName: {"admin", []any{
			&pb.CreateKeyRequest{}, &pb.CreateKeyRequest{User: "reader"}, &pb.CreateKeyRequest{User: "someone", Service: true}}},
		pb.IAMService_ListKeys_FullMethodName:  {"admin", []any{&pb.ListKeysRequest{}, &pb.ListKeysRequest{User: "someone"}}},
		pb.IAMService_GetKey_FullMethodName:    {all, one(nil)}, // TestOwnKeys has the rest
		pb.IAMService_UpdateKey_FullMethodName: {firsts, one(nil)},
		pb.IAMService_DeleteKey_FullMethodName: {firsts, one(nil)},

		reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName:      {all, one(nil)},
		reflectionalphapb.ServerReflection_ServerReflectionInfo_FullMethodName: {all, one(nil)},
		healthpb.Health_Check_FullMethodName:                                   {},
		healthpb.Health_List_FullMethodName:                                    {},
		healthpb.Health_Watch_FullMethodName:                                   {},
	} {
		permission, ok := permissions()[method]
		if !ok || (len(c.messages) == 0) != permission.open {
			t.Errorf("%s: there is no such method, or it is open", method)
			continue
		}
		for name, p := range callers {
			for _, m := range c.messages {
				err := permission.check(p, m)
				if may := slices.Contains(strings.Fields(c.may), name); may != (err == nil) {
					t.Errorf("%s as %s with %v: %v; want it allowed: %v", method, name, m, err, may)
				}
			}
		}
		delete(left, method)
	}
	for method := range left {
		t.Errorf("%s isn't in this test", method)
	}
}

// TestOwnSelf: of one's own keys, without the service that knows whose they are.
func TestOwnSelf(t *testing.T) {
	k := newKeeper(t, iam.Generate(iam.RootID))
	ann := k.user(t, "ann")
	first, service, token := k.principal(ann), k.principal(k.service(t, "ann", "admin:*")), k.principal(k.token(t, ann))
	for _, c := range []struct {
		method string
		m      any
		may    []iam.Principal
	}{
		{pb.IAMService_CreateKey_FullMethodName, &pb.CreateKeyRequest{Service: true}, []iam.Principal{first}},
		{pb.IAMService_CreateKey_FullMethodName, &pb.CreateKeyRequest{User: "ann", Service: true}, []iam.Principal{first}},
		{pb.IAMService_ListKeys_FullMethodName, &pb.ListKeysRequest{User: "ann"}, []iam.Principal{first}},
	} {
		for _, p := range []iam.Principal{first, service, token, {}} {
			if err := permissions()[c.method].check(p, c.m); (err == nil) != slices.Contains(c.may, p) {
				t.Errorf("%s by %s, service %v, with %v: %v", c.method, p.Via, p.Service, c.m, err)
			}
		}
	}
}

// TestListOwnBuckets: a list has what its caller may see and nothing of the
// rest, in pages that are full.
func TestListOwnBuckets(t *testing.T) {
	s := serve(t, nil)
	ctx := t.Context()
	all := pb.NewBucketServiceClient(s.conn)
	for _, name := range []string{"aaa", "bbb", "ccc", "ddd", "eee"} {
		if _, err := all.CreateBucket(ctx, &pb.CreateBucketRequest{Bucket: name}); err != nil {
			t.Fatal(err)
		}
	}
	named := s.keeper.user(t, "named", "readonly:bbb/x/", "readwrite:ddd", "admin:eee", "readonly:ddd", "admin:nosuch", "metrics")
	for _, c := range []struct{ bearer, want string }{
		{named, "bbb ddd eee"},
		{s.keeper.user(t, "every", "readonly:*", "admin:ddd"), "aaa bbb ccc ddd eee"},
		{s.keeper.service(t, "every", "readonly:*"), "aaa bbb ccc ddd eee"},
		{s.keeper.service(t, "every", "admin:ccc"), "ccc"},
		{s.keeper.service(t, "named", "readonly:*"), "bbb ddd eee"},
		{s.keeper.service(t, "named", "readonly:aaa", "readonly:eee"), "eee"},
		{s.keeper.token(t, named, "readonly:ddd/x"), "ddd"},
		{s.keeper.user(t, "nosuch", "admin:nosuch"), ""},
	} {
		buckets := pb.NewBucketServiceClient(s.as(t, c.bearer))
		want := strings.Fields(c.want)
		for _, size := range []int{0, 1, 2, 3} {
			var got []string
			req := &pb.ListBucketsRequest{PageSize: int32(size)}
			for {
				page, err := buckets.ListBuckets(ctx, req)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range page.GetBuckets() {
					got = append(got, b.GetName())
				}
				req.PageToken = page.GetNextPageToken()
				if req.PageToken == "" {
					break
				}
				if len(page.GetBuckets()) != size {
					t.Errorf("%q: a page of %d that isn't the last", c.want, len(page.GetBuckets()))
				}
				if text := string(must(base64.RawURLEncoding.DecodeString(req.PageToken))); len(want) < 5 && (strings.Contains(text, "aaa") || strings.Contains(text, "ccc")) {
					t.Errorf("%q: the token has %q", c.want, text)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %q, want %q", size, got, want)
			}
		}
		_, err := buckets.ListBuckets(ctx, &pb.ListBucketsRequest{PageToken: "x"})
		checkStatus(t, c.want, err, fault.InvalidArgument, "page_token")
	}
	for _, grant := range []string{"", "metrics"} {
		buckets := pb.NewBucketServiceClient(s.as(t, s.keeper.user(t, "no"+grant, strings.Fields(grant)...)))
		_, err := buckets.ListBuckets(ctx, &pb.ListBucketsRequest{})
		checkStatus(t, "with "+grant, err, fault.PermissionDenied, "")
	}
}

// TestItemByItem: each key of a batch, a copy and a list is permitted by itself,
// and a refusal says nothing of what there is, and changes nothing.
func TestItemByItem(t *testing.T) {
	s := serve(t, nil)
	st := makeStore(t, s)
	for _, key := range []string{"2026/a", "2026/b", "2026-secret/c", "2027/d"} {
		if _, err := st.put(t, &pb.PutObjectHeader{Bucket: "photos", Key: key}, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pb.NewBucketServiceClient(s.conn).CreateBucket(t.Context(), &pb.CreateBucketRequest{Bucket: "hidden"}); err != nil {
		t.Fatal(err)
	}
	before := st.keys(t)
	c, ctx := pb.NewObjectServiceClient(s.as(t, s.keeper.user(t, "ann", "readwrite:photos/2026/"))), t.Context()
	reader := pb.NewObjectServiceClient(s.as(t, s.keeper.user(t, "bob", "readonly:photos", "readwrite:photos/2026/")))
	remove := func(keys ...string) error {
		return second(c.DeleteObjects(ctx, &pb.DeleteObjectsRequest{Bucket: "photos", Keys: keys}))
	}
	copied := func(c pb.ObjectServiceClient, srcBucket, src, bucket, key string) error {
		return second(c.CopyObject(ctx, &pb.CopyObjectRequest{SourceBucket: srcBucket, SourceKey: src, Bucket: bucket, Key: key}))
	}
	list := func(bucket, prefix string) error {
		return second(c.ListObjects(ctx, &pb.ListObjectsRequest{Bucket: bucket, Prefix: prefix}))
	}
	stream := func(bucket, prefix string) error {
		_, _, _, err := streamed(c.StreamObjects(ctx, &pb.StreamObjectsRequest{Bucket: bucket, Prefix: prefix}))
		return err
	}
	var texts []string
	for what, err := range map[string]error{
		"batch, the last is another's":    remove("2026/a", "2026/b", "2027/d"),
		"batch, the last is nobody's":     remove("2026/a", "2026/b", "2027/x"),
		"batch, the first":                remove("2027/d", "2026/a"),
		"batch, beside the prefix":        remove("2026-secret/c"),
		"batch, the prefix itself":        remove("2026"),
		"batch, another bucket":           second(c.DeleteObjects(ctx, &pb.DeleteObjectsRequest{Bucket: "hidden", Keys: []string{"2026/a"}})),
		"batch, no bucket":                second(c.DeleteObjects(ctx, &pb.DeleteObjectsRequest{Bucket: "nosuch", Keys: []string{"2026/a"}})),
		"batch, empty, another bucket":    second(c.DeleteObjects(ctx, &pb.DeleteObjectsRequest{Bucket: "hidden"})),
		"copy from another's":             copied(c, "photos", "2027/d", "photos", "2026/x"),
		"copy from nobody's":              copied(c, "photos", "2027/x", "photos", "2026/x"),
		"copy to another's":               copied(c, "photos", "2026/a", "photos", "2027/d"),
		"copy to another bucket":          copied(c, "photos", "2026/a", "hidden", "2026/a"),
		"copy from another bucket":        copied(c, "hidden", "2026/a", "photos", "2026/x"),
		"copy from no bucket":             copied(c, "nosuch", "2026/a", "photos", "2026/x"),
		"copy to what may be read":        copied(reader, "photos", "2026/a", "photos", "2027/d"),
		"copy, the source's bucket is it": copied(c, "", "2027/d", "photos", "2026/x"),
		"list all":                        list("photos", ""),
		"list a part of the prefix":       list("photos", "2026"),
		"list beside":                     list("photos", "2027/"),
		"list another bucket":             list("hidden", "2026/"),
		"list no bucket":                  list("nosuch", "2026/"),
		"stream all":                      stream("photos", ""),
		"stream a part of the prefix":     stream("photos", "2026"),
		"stream beside":                   stream("photos", "2027/"),
		"stream no bucket":                stream("nosuch", "2026/"),
		"get another's":                   second(c.StatObject(ctx, &pb.StatObjectRequest{Bucket: "photos", Key: "2027/d"})),
		"get nobody's":                    second(c.StatObject(ctx, &pb.StatObjectRequest{Bucket: "photos", Key: "2027/x"})),
	} {
		checkStatus(t, what, err, fault.PermissionDenied, "")
		texts = append(texts, status.Convert(err).Message())
	}
	for _, text := range texts {
		for _, name := range []string{"exist", "secret/d", "not found", "there is no"} {
			if strings.Contains(text, name) {
				t.Errorf("a refusal says %q", text)
			}
		}
	}
	// What is authorised is what is looked for: nothing is made of the name.
	checkStatus(t, "batch, up", remove("2026/../2027/d"), fault.InvalidArgument, "keys[0]")
	// The same words whether there is such a thing or not.
	for _, pair := range [][2]error{
		{remove("2027/d"), remove("2027/x")},
		{copied(c, "photos", "2027/d", "photos", "2026/x"), copied(c, "photos", "2027/x", "photos", "2026/x")},
		{list("hidden", "2026/"), list("nosuch", "2026/")},
	} {
		tell := strings.NewReplacer("2027/x", "2027/d", "nosuch", "hidden")
		a, b := status.Convert(pair[0]).Message(), tell.Replace(status.Convert(pair[1]).Message())
		if a != b {
			t.Errorf("%q and %q tell what there is", a, b)
		}
	}
	if after := st.keys(t); !slices.Equal(after, before) {
		t.Errorf("there are %q, and were %q", after, before)
	}
	page, err := c.ListObjects(ctx, &pb.ListObjectsRequest{Bucket: "photos", Prefix: "2026/", PageSize: 1})
	if err != nil || len(page.GetObjects()) != 1 || page.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", page, err)
	}
	// A token leads nowhere else.
	for _, r := range []*pb.ListObjectsRequest{
		{Bucket: "photos", Prefix: "2026/", PageToken: page.GetNextPageToken()},
		{Bucket: "photos", Prefix: "2026/", StartAfter: "2026/zzz"},
		{Bucket: "photos", Prefix: "2026/", StartAfter: "2027/"},
		{Bucket: "photos", Prefix: "2026/", StartAfter: "2025/"},
		{Bucket: "photos", Prefix: "2026/", Delimiter: "/"},
	} {
		page, err := c.ListObjects(ctx, r)
		if err != nil {
			t.Errorf("%v: %v", r, err)
		}
		for _, o := range page.GetObjects() {
			if !strings.HasPrefix(o.GetKey(), "2026/") {
				t.Errorf("%v shows %q", r, o.GetKey())
			}
		}
	}
	if err := remove("2026/a", "2026/b", "2026/none"); err != nil {
		t.Error(err)
	}
	if after := st.keys(t); !slices.Equal(after, []string{"2026-secret/c", "2027/d"}) {
		t.Errorf("there are %q", after)
	}
}
