package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// readwrite is a grant.
func readwrite(bucket, prefix string) *pb.Grant {
	return &pb.Grant{Role: pb.Role_ROLE_READWRITE, Bucket: bucket, Prefix: prefix}
}

func TestUsers(t *testing.T) {
	s := serve(t, nil)
	users, ctx := pb.NewIAMServiceClient(s.conn), t.Context()
	made, err := users.CreateUser(ctx, &pb.CreateUserRequest{
		Name: "ann", Grants: []*pb.Grant{readwrite("photos", "2026/"), {Role: pb.Role_ROLE_METRICS}}, Certificates: []string{"ann.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.User{
		Name: "ann", Grants: []*pb.Grant{readwrite("photos", "2026/"), {Role: pb.Role_ROLE_METRICS}}, Certificates: []string{"ann.example"},
		CreatedAt: &timestamppb.Timestamp{Seconds: 1}, Revision: 1,
	}
	if !proto.Equal(made.GetUser(), want) {
		t.Errorf("made %v, want %v", made.GetUser(), want)
	}
	got, err := users.GetUser(ctx, &pb.GetUserRequest{Name: "ann"})
	if err != nil || !proto.Equal(got.GetUser(), want) {
		t.Errorf("got %v, %v", got.GetUser(), err)
	}
	_, err = users.CreateUser(ctx, &pb.CreateUserRequest{Name: "ann"})
	checkStatus(t, "made twice", err, fault.AlreadyExists, "user")
	_, err = users.UpdateUser(ctx, &pb.UpdateUserRequest{Name: "ann", Revision: 7})
	checkStatus(t, "another revision", err, fault.PreconditionFailed, `user "ann"`)
	set, err := users.UpdateUser(ctx, &pb.UpdateUserRequest{Name: "ann", Disabled: true, Revision: 1})
	want = &pb.User{Name: "ann", Disabled: true, CreatedAt: &timestamppb.Timestamp{Seconds: 1}, Revision: 2}
	if err != nil || !proto.Equal(set.GetUser(), want) {
		t.Errorf("set %v, %v, want %v", set.GetUser(), err, want)
	}
	_, err = users.DeleteUser(ctx, &pb.DeleteUserRequest{Name: "ann", Revision: 1})
	checkStatus(t, "deleted by another revision", err, fault.PreconditionFailed, `user "ann"`)
	if _, err := users.DeleteUser(ctx, &pb.DeleteUserRequest{Name: "ann", Revision: 2}); err != nil {
		t.Error(err)
	}
	_, err = users.GetUser(ctx, &pb.GetUserRequest{Name: "ann"})
	checkStatus(t, "gone", err, fault.NotFound, `user "ann"`)
	_, err = users.DeleteUser(ctx, &pb.DeleteUserRequest{Name: "ann"})
	checkStatus(t, "deleted twice", err, fault.NotFound, `user "ann"`)
}

// TestIAMAsJSON: the shapes, which scripts rely on.
func TestIAMAsJSON(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/v1/iam/users", `{"name":"a@b.c","grants":[{"role":"ROLE_READONLY","bucket":"photos","prefix":"a/"}],"certificates":["x"]}`,
			`{"user":{"name":"a@b.c","disabled":false,"grants":[{"role":"ROLE_READONLY","bucket":"photos","prefix":"a/"}],"certificates":["x"],
			"createdAt":"1970-01-01T00:00:01Z","revision":"1"}}`},
		{"GET", "/v1/iam/users/a@b.c", "",
			`{"user":{"name":"a@b.c","disabled":false,"grants":[{"role":"ROLE_READONLY","bucket":"photos","prefix":"a/"}],"certificates":["x"],
			"createdAt":"1970-01-01T00:00:01Z","revision":"1"}}`},
		{"PUT", "/v1/iam/users/a@b.c", `{"disabled":true,"revision":"1"}`,
			`{"user":{"name":"a@b.c","disabled":true,"grants":[],"certificates":[],"createdAt":"1970-01-01T00:00:01Z","revision":"2"}}`},
		{"GET", "/v1/iam/users?pageSize=1", "",
			`{"users":[{"name":"a@b.c","disabled":true,"grants":[],"certificates":[],"createdAt":"1970-01-01T00:00:01Z","revision":"2"}],"nextPageToken":""}`},
		{"GET", "/v1/iam/keys", "", `{"keys":[],"nextPageToken":""}`},
		{"DELETE", "/v1/iam/users/a@b.c?revision=2", "", `{}`},
		{"GET", "/v1/iam/whoami", "", `{"user":"root","keyId":"root","root":true,"service":false,"credentialType":"CREDENTIAL_TYPE_ROOT_KEY","grants":[],
			"deploymentId":"` + testDeployment + `"}`},
	} {
		resp, body := s.call(t, c.method, c.path, c.body)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, body)
			continue
		}
		checkJSON(t, body, c.want)
	}
	ann := s.keeper.user(t, "ann", "readonly:photos")
	resp, body := s.call(t, "POST", "/v1/iam/keys", `{"service":true,"grants":[{"role":"ROLE_READONLY","bucket":"photos"}],"comment":"c"}`, asHeader, "Bearer "+ann)
	var made struct {
		Key        struct{ ID, User string }
		Credential string
	}
	if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusOK || made.Key.User != "ann" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	if p := s.keeper.principal(made.Credential); p.ID != made.Key.ID || !p.Service {
		t.Errorf("the credential lets in %+v", p)
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/iam/keys/" + made.Key.ID, ""},
		{"PUT", "/v1/iam/keys/" + made.Key.ID, `{"grants":[{"role":"ROLE_READONLY","bucket":"photos"}]}`},
		{"GET", "/v1/iam/keys?user=ann", ""},
		{"POST", "/v1/iam/tokens", `{"ttl":"60s"}`},
		{"DELETE", "/v1/iam/keys/" + made.Key.ID, ""},
	} {
		resp, body := s.call(t, c.method, c.path, c.body, asHeader, "Bearer "+ann)
		if resp.StatusCode != http.StatusOK || strings.Contains(body, made.Credential) || strings.Contains(body, "sealed") {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, body)
		}
	}
}

// TestIAMPages: every page is full but the last, and a token is good for its
// listing alone.
func TestIAMPages(t *testing.T) {
	s := serve(t, nil)
	for i := range 5 {
		s.keeper.user(t, fmt.Sprintf("u%d", i), "readonly:photos")
	}
	for range 3 {
		s.keeper.service(t, "u1", "readonly:photos")
	}
	c, ctx := pb.NewIAMServiceClient(s.conn), t.Context()
	var names []string
	var sizes []int
	req := &pb.ListUsersRequest{PageSize: 2}
	for {
		page, err := c.ListUsers(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.GetUsers()))
		for _, u := range page.GetUsers() {
			names = append(names, u.GetName())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(names, []string{"u0", "u1", "u2", "u3", "u4"}) || !slices.Equal(sizes, []int{2, 2, 1}) {
		t.Errorf("pages of %v: %q", sizes, names)
	}
	first, err := c.ListKeys(ctx, &pb.ListKeysRequest{User: "u1", PageSize: 3})
	if err != nil || len(first.GetKeys()) != 3 || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	rest, err := c.ListKeys(ctx, &pb.ListKeysRequest{User: "u1", PageSize: 3, PageToken: first.GetNextPageToken()})
	if err != nil || len(rest.GetKeys()) != 1 || rest.GetNextPageToken() != "" {
		t.Errorf("%v, %v", rest, err)
	}
	all, err := c.ListKeys(ctx, &pb.ListKeysRequest{})
	if err != nil || len(all.GetKeys()) != 8 {
		t.Errorf("%v, %v", all, err)
	}
	for _, token := range []string{"x", "====", first.GetNextPageToken() + "\n", tokenOf("a", usersListing)[1:], tokenOf("a", keysListing), tokenOf("a", keysListing+"u2"), tokenOf(strings.Repeat("a", 300), keysListing+"u1")} {
		_, err := c.ListKeys(ctx, &pb.ListKeysRequest{User: "u1", PageToken: token})
		checkStatus(t, token, err, fault.InvalidArgument, "page_token")
	}
	for _, size := range []int32{-1, 1001} {
		_, err := c.ListUsers(ctx, &pb.ListUsersRequest{PageSize: size})
		checkStatus(t, fmt.Sprint(size), err, fault.InvalidArgument, "page_size")
	}
}

// TestIAMRefuses: what is wrong with a request is said, by its field.
func TestIAMRefuses(t *testing.T) {
	s := serve(t, nil)
	s.keeper.user(t, "ann", "readonly:photos")
	service := s.keeper.principal(s.keeper.service(t, "ann", "readonly:photos")).ID
	c, ctx := pb.NewIAMServiceClient(s.conn), t.Context()
	past, year := timestamppb.New(time.Now().Add(-time.Second)), timestamppb.New(time.Now().AddDate(1, 0, 0))
	photos := []*pb.Grant{readwrite("photos", "")}
	for what, call := range map[string]struct {
		subject string
		err     func() error
	}{
		"no name":  {"name", func() error { _, err := c.CreateUser(ctx, &pb.CreateUserRequest{}); return err }},
		"root":     {"name", func() error { _, err := c.CreateUser(ctx, &pb.CreateUserRequest{Name: "root"}); return err }},
		"bad name": {"name", func() error { _, err := c.GetUser(ctx, &pb.GetUserRequest{Name: "A"}); return err }},
		"a path":   {"name", func() error { _, err := c.DeleteUser(ctx, &pb.DeleteUserRequest{Name: "../a"}); return err }},
		"no user":  {"name", func() error { _, err := c.UpdateUser(ctx, &pb.UpdateUserRequest{}); return err }},
		"no role": {"grants[0].role", func() error {
			_, err := c.CreateUser(ctx, &pb.CreateUserRequest{Name: "bob", Grants: []*pb.Grant{{Bucket: "photos"}}})
			return err
		}},
		"a new role": {"grants[1].role", func() error {
			_, err := c.CreateUser(ctx, &pb.CreateUserRequest{Name: "bob", Grants: []*pb.Grant{photos[0], {Role: 9, Bucket: "photos"}}})
			return err
		}},
		"no bucket": {"grants[0].bucket", func() error {
			_, err := c.UpdateUser(ctx, &pb.UpdateUserRequest{Name: "ann", Grants: []*pb.Grant{readwrite("", "")}})
			return err
		}},
		"all, prefix": {"grants[0].prefix", func() error {
			_, err := c.UpdateUser(ctx, &pb.UpdateUserRequest{Name: "ann", Grants: []*pb.Grant{readwrite("*", "a/")}})
			return err
		}},
		"many grants": {"grants", func() error {
			_, err := c.CreateUser(ctx, &pb.CreateUserRequest{Name: "bob", Grants: slices.Repeat(photos, iam.MaxGrants+1)})
			return err
		}},
		"bad certificate": {"certificates[0]", func() error {
			_, err := c.CreateUser(ctx, &pb.CreateUserRequest{Name: "bob", Certificates: []string{"a\n"}})
			return err
		}},

		"root's key":      {"user", func() error { _, err := c.CreateKey(ctx, &pb.CreateKeyRequest{}); return err }},
		"a key of nobody": {`user "bob"`, func() error { _, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "bob"}); return err }},
		"service, none":   {"grants", func() error { _, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", Service: true}); return err }},
		"grants, no service": {"grants", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", Grants: photos})
			return err
		}},
		"expired": {"expires_at", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", ExpiresAt: past})
			return err
		}},
		"no time": {"expires_at", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", ExpiresAt: &timestamppb.Timestamp{Nanos: -1}})
			return err
		}},
		"1969": {"expires_at", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", ExpiresAt: &timestamppb.Timestamp{Seconds: -1}})
			return err
		}},
		"beyond int64": {"expires_at", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", ExpiresAt: timestamppb.New(time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC))})
			return err
		}},
		"long comment": {"comment", func() error {
			_, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", ExpiresAt: year, Comment: strings.Repeat("x", 257)})
			return err
		}},
		"no id":            {"id", func() error { _, err := c.GetKey(ctx, &pb.GetKeyRequest{}); return err }},
		"bad id":           {"id", func() error { _, err := c.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: "A"}); return err }},
		"service's grants": {"grants", func() error { _, err := c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: service}); return err }},

		"ttl 0": {"ttl", func() error { _, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Ttl: durationpb.New(0)}); return err }},
		"ttl 16m": {"ttl", func() error {
			_, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Ttl: durationpb.New(16 * time.Minute)})
			return err
		}},
		"ttl -1s": {"ttl", func() error {
			_, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Ttl: durationpb.New(-time.Second)})
			return err
		}},
		"no duration": {"ttl", func() error {
			_, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Ttl: &durationpb.Duration{Seconds: 1, Nanos: -1}})
			return err
		}},
		"token grants": {"grants[0].role", func() error { _, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Grants: []*pb.Grant{{}}}); return err }},
	} {
		kind := fault.InvalidArgument
		if strings.HasPrefix(call.subject, "user ") {
			kind = fault.NotFound
		}
		checkStatus(t, what, call.err(), kind, call.subject)
	}
	if u := must(s.keeper.GetUser(ctx, "ann")); u.Revision != 1 || len(s.keeper.users) != 1 || len(s.keeper.keys) != 2 {
		t.Errorf("something was changed: %+v", u)
	}
}

// TestWhoAmI: each way in, and what it may do.
func TestWhoAmI(t *testing.T) {
	s := serve(t, nil)
	ann := s.keeper.user(t, "ann", "readwrite:photos", "readonly:docs", "metrics")
	service := s.keeper.service(t, "ann", "readonly:photos/a/", "admin:videos", "readonly:*")
	for _, c := range []struct {
		bearer  string
		kind    pb.CredentialType
		service bool
		may     string
		ends    bool
	}{
		{ann, pb.CredentialType_CREDENTIAL_TYPE_KEY, false, "readwrite:photos readonly:docs metrics", false},
		{service, pb.CredentialType_CREDENTIAL_TYPE_KEY, true, "readonly:photos readonly:docs", false},
		{s.keeper.token(t, ann), pb.CredentialType_CREDENTIAL_TYPE_TOKEN, false, "readwrite:photos readonly:docs metrics", true},
		{s.keeper.token(t, ann, "readonly:photos/b", "metrics"), pb.CredentialType_CREDENTIAL_TYPE_TOKEN, false, "readonly:photos/b metrics", true},
		{s.keeper.token(t, service, "admin:*"), pb.CredentialType_CREDENTIAL_TYPE_TOKEN, true, "readonly:photos readonly:docs", true},
		{s.keeper.token(t, service, "readwrite:photos/a/b"), pb.CredentialType_CREDENTIAL_TYPE_TOKEN, true, "readonly:photos/a/b", true},
	} {
		r, err := pb.NewIAMServiceClient(s.as(t, c.bearer)).WhoAmI(t.Context(), &pb.WhoAmIRequest{})
		if err != nil {
			t.Fatal(err)
		}
		got := must(grantsOf(r.GetGrants()))
		if fmt.Sprint(got) != fmt.Sprint(grants(strings.Fields(c.may)...)) || r.GetUser() != "ann" || r.GetRoot() ||
			r.GetService() != c.service || r.GetCredentialType() != c.kind || (r.GetExpiresAt() != nil) != c.ends ||
			r.GetDeploymentId() != testDeployment || r.GetKeyId() == "" {
			t.Errorf("%v, want %s of %v", r, c.may, c.kind)
		}
	}
}

// TestOwnKeys: what callers that are no admins may do with keys of their own,
// and that nothing tells them of others'.
func TestOwnKeys(t *testing.T) {
	s := serve(t, nil)
	ann, bob := s.keeper.user(t, "ann", "readwrite:photos"), s.keeper.user(t, "bob", "readwrite:photos")
	annID, bobs := s.keeper.principal(ann).ID, s.keeper.principal(s.keeper.service(t, "bob", "readonly:photos")).ID
	c, ctx := pb.NewIAMServiceClient(s.as(t, ann)), t.Context()
	photos := []*pb.Grant{readwrite("photos", "")}

	made, err := c.CreateKey(ctx, &pb.CreateKeyRequest{Service: true, Grants: []*pb.Grant{{Role: pb.Role_ROLE_ADMIN, Bucket: "*"}}})
	if err != nil || made.GetKey().GetUser() != "ann" || !made.GetKey().GetService() {
		t.Fatalf("%v, %v", made, err)
	}
	id := made.GetKey().GetId()
	p := s.keeper.principal(made.GetCredential())
	if iam.Allowed(p, iam.IAMWrite, "", "") || iam.Allowed(p, iam.ObjectRead, "docs", "a") || !iam.Allowed(p, iam.ObjectWrite, "photos", "a") {
		t.Error("a service key may do something else than its user")
	}
	if _, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann", Service: true, Grants: photos}); err != nil {
		t.Error(err)
	}
	list, err := c.ListKeys(ctx, &pb.ListKeysRequest{User: "ann"})
	if err != nil || len(list.GetKeys()) != 3 {
		t.Errorf("%v, %v", list, err)
	}
	for _, own := range []string{annID, id} {
		if k, err := c.GetKey(ctx, &pb.GetKeyRequest{Id: own}); err != nil || k.GetKey().GetId() != own {
			t.Errorf("%v, %v", k, err)
		}
	}
	set, err := c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos, Disabled: true, Comment: "c", Revision: made.GetKey().GetRevision()})
	if k := set.GetKey(); err != nil || !k.GetDisabled() || k.GetComment() != "c" {
		t.Errorf("%v, %v", set, err)
	}
	if _, err := s.keeper.gate.Verify(iam.Request{Authorization: "Bearer " + made.GetCredential(), Now: time.Now()}); err == nil {
		t.Error("a disabled key lets in")
	}

	before := len(s.keeper.keys)
	refused := func(what string, err error) {
		t.Helper()
		checkStatus(t, what, err, fault.PermissionDenied, "")
		if err != nil && (strings.Contains(err.Error(), bobs) || strings.Contains(err.Error(), "bob")) {
			t.Errorf("%s: the answer tells of others: %v", what, err)
		}
	}
	for name, conn := range map[string]pb.IAMServiceClient{
		"a key":         c,
		"a token":       pb.NewIAMServiceClient(s.as(t, s.keeper.token(t, ann))),
		"a service key": pb.NewIAMServiceClient(s.as(t, s.keeper.service(t, "ann", "admin:*"))),
	} {
		for what, err := range map[string]error{
			"a key for oneself":   second(conn.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann"})),
			"a key for another":   second(conn.CreateKey(ctx, &pb.CreateKeyRequest{User: "bob", Service: true, Grants: photos})),
			"a key for nobody":    second(conn.CreateKey(ctx, &pb.CreateKeyRequest{User: "carl", Service: true, Grants: photos})),
			"all keys":            second(conn.ListKeys(ctx, &pb.ListKeysRequest{})),
			"another's keys":      second(conn.ListKeys(ctx, &pb.ListKeysRequest{User: "bob"})),
			"nobody's keys":       second(conn.ListKeys(ctx, &pb.ListKeysRequest{User: "carl"})),
			"another's key":       second(conn.GetKey(ctx, &pb.GetKeyRequest{Id: bobs})),
			"no key":              second(conn.GetKey(ctx, &pb.GetKeyRequest{Id: "none"})),
			"set another's key":   second(conn.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: bobs, Grants: photos})),
			"set no key":          second(conn.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: "none", Grants: photos})),
			"set the first key":   second(conn.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: annID})),
			"remove another's":    second(conn.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: bobs})),
			"remove no key":       second(conn.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: "none"})),
			"remove the first":    second(conn.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: annID})),
			"a user":              second(conn.CreateUser(ctx, &pb.CreateUserRequest{Name: "eve"})),
			"oneself an admin":    second(conn.UpdateUser(ctx, &pb.UpdateUserRequest{Name: "ann", Grants: []*pb.Grant{{Role: pb.Role_ROLE_ADMIN, Bucket: "*"}}})),
			"remove a user":       second(conn.DeleteUser(ctx, &pb.DeleteUserRequest{Name: "bob"})),
			"the users":           second(conn.ListUsers(ctx, &pb.ListUsersRequest{})),
			"one user":            second(conn.GetUser(ctx, &pb.GetUserRequest{Name: "ann"})),
			"a token for a token": tokenRefused(ctx, name, conn),
		} {
			refused(name+": "+what, err)
		}
		if name == "a key" {
			continue
		}
		// What is lent sees itself, and not what else its user has lent to whom.
		self, err := conn.WhoAmI(ctx, &pb.WhoAmIRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if k, err := conn.GetKey(ctx, &pb.GetKeyRequest{Id: self.GetKeyId()}); err != nil || k.GetKey().GetUser() != "ann" {
			t.Errorf("%s: its own key: %v, %v", name, k, err)
		}
		refused(name+": its user's keys", second(conn.ListKeys(ctx, &pb.ListKeysRequest{User: "ann"})))
		refused(name+": its user's other key", second(conn.GetKey(ctx, &pb.GetKeyRequest{Id: id})))
		// Nor does it make anything that would outlive it.
		refused(name+": a service key", second(conn.CreateKey(ctx, &pb.CreateKeyRequest{Service: true, Grants: photos})))
		refused(name+": set", second(conn.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos})))
		refused(name+": remove", second(conn.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: id})))
	}
	if len(s.keeper.keys) != before+1 || len(s.keeper.users) != 2 {
		t.Error("something was changed")
	}
	// What an admin has disabled stays so.
	if _, err := pb.NewIAMServiceClient(s.conn).UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos, Disabled: true}); err != nil {
		t.Error(err)
	}
	refused("enable", second(c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos})))
	if _, err := c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos, Disabled: true, Comment: "still"}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteKey(ctx, &pb.DeleteKeyRequest{Id: id}); err != nil {
		t.Error(err)
	}
	if _, err := pb.NewIAMServiceClient(s.as(t, bob)).DeleteKey(ctx, &pb.DeleteKeyRequest{Id: bobs}); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// tokenRefused asks for a token with what there is none for: a token. Others
// are held to a call that is refused to them anyway.
func tokenRefused(ctx context.Context, name string, c pb.IAMServiceClient) error {
	if name != "a token" {
		return second(c.ListUsers(ctx, &pb.ListUsersRequest{}))
	}
	return second(c.IssueToken(ctx, &pb.IssueTokenRequest{}))
}

// TestOwnKeysEndWithTheirs: a key that ends makes none that doesn't.
func TestOwnKeysEndWithTheirs(t *testing.T) {
	s := serve(t, nil)
	s.keeper.user(t, "ann", "readwrite:photos")
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	_, key, err := s.keeper.CreateKey(t.Context(), iam.Key{User: "ann", Expires: end.UnixNano()})
	if err != nil {
		t.Fatal(err)
	}
	c, ctx := pb.NewIAMServiceClient(s.as(t, key.String())), t.Context()
	ask := func(at *timestamppb.Timestamp) *pb.CreateKeyRequest {
		return &pb.CreateKeyRequest{Service: true, Grants: []*pb.Grant{readwrite("photos", "")}, ExpiresAt: at}
	}
	made, err := c.CreateKey(ctx, ask(nil))
	if err != nil || !made.GetKey().GetExpiresAt().AsTime().Equal(end) {
		t.Errorf("%v, %v: want one until %v", made.GetKey(), err, end)
	}
	sooner := timestamppb.New(end.Add(-time.Minute))
	if made, err := c.CreateKey(ctx, ask(sooner)); err != nil || !proto.Equal(made.GetKey().GetExpiresAt(), sooner) {
		t.Errorf("%v, %v: want one until %v", made.GetKey(), err, sooner)
	}
	later := timestamppb.New(end.Add(time.Second))
	_, err = c.CreateKey(ctx, ask(later))
	checkStatus(t, "later", err, fault.InvalidArgument, "expires_at")
	id, photos := made.GetKey().GetId(), []*pb.Grant{readwrite("photos", "")}
	_, err = c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos, ExpiresAt: later})
	checkStatus(t, "set later", err, fault.InvalidArgument, "expires_at")
	if set, err := c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: id, Grants: photos}); err != nil || !set.GetKey().GetExpiresAt().AsTime().Equal(end) {
		t.Errorf("%v, %v: want one until %v", set.GetKey(), err, end)
	}
	// An admin's key may end, and what it makes is for others.
	must(s.keeper.CreateUser(ctx, iam.User{Name: "adm", Grants: grants("admin:*")}))
	_, key, err = s.keeper.CreateKey(ctx, iam.Key{User: "adm", Expires: end.UnixNano()})
	if err != nil {
		t.Fatal(err)
	}
	c = pb.NewIAMServiceClient(s.as(t, key.String()))
	if made, err := c.CreateKey(ctx, &pb.CreateKeyRequest{User: "ann"}); err != nil || made.GetKey().GetExpiresAt() != nil {
		t.Errorf("%v, %v", made.GetKey(), err)
	}
	token, err := c.IssueToken(ctx, &pb.IssueTokenRequest{Ttl: durationpb.New(time.Minute)})
	if err != nil || token.GetToken() == "" || token.GetExpiresAt().AsTime().After(time.Now().Add(time.Minute)) {
		t.Errorf("until %v, %v", token.GetExpiresAt(), err)
	}
}

// TestOwnKeysAreBounded: nobody fills what all users share with keys of their own;
// an admin isn't held to that.
func TestOwnKeysAreBounded(t *testing.T) {
	s, ctx := serve(t, nil), t.Context()
	c, admin := pb.NewIAMServiceClient(s.as(t, s.keeper.user(t, "ann"))), pb.NewIAMServiceClient(s.conn)
	ask := func(grants int) *pb.CreateKeyRequest {
		r := &pb.CreateKeyRequest{User: "ann", Service: true}
		for i := range grants {
			r.Grants = append(r.Grants, readwrite("photos", fmt.Sprint(i)))
		}
		return r
	}
	_, err := c.CreateKey(ctx, ask(maxOwnGrants+1))
	checkStatus(t, "too many grants", err, fault.InvalidArgument, "grants")
	var last *pb.CreateKeyResponse
	for range maxOwnKeys - 1 { // with her first
		if last, err = c.CreateKey(ctx, ask(maxOwnGrants)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.CreateKey(ctx, ask(1))
	checkStatus(t, "too many keys", err, fault.QuotaExceeded, "key")
	_, err = c.UpdateKey(ctx, &pb.UpdateKeyRequest{Id: last.GetKey().GetId(), Grants: ask(maxOwnGrants + 1).Grants})
	checkStatus(t, "too many grants, later", err, fault.InvalidArgument, "grants")
	if _, err := admin.CreateKey(ctx, ask(maxOwnGrants+1)); err != nil {
		t.Errorf("an admin: %v", err)
	}
}
