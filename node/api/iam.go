package api

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// Identities keeps users and access keys, and makes tokens. What it is asked to
// keep may be nonsense: that is its to refuse. Its answers show every change
// that was acknowledged before the call. Errors are *fault.Error or the
// context's.
//
// A page begins behind after, "" being the beginning, and has up to limit of
// them; next is the last of it, "" on the last page. A revision is that of
// the row to be changed, 0 whichever it is.
type Identities interface {
	// Deployment is the id of the mesh, "" while it isn't known.
	Deployment() string
	// IssueToken makes a token that stands for p, 0 being the longest ttl.
	IssueToken(p iam.Principal, grants []iam.Grant, ttl time.Duration) (token string, expires time.Time, err error)

	CreateUser(ctx context.Context, u iam.User) (UserInfo, error)
	GetUser(ctx context.Context, name string) (UserInfo, error)
	ListUsers(ctx context.Context, after string, limit int) (users []UserInfo, next string, err error)
	UpdateUser(ctx context.Context, u iam.User, revision uint64) (UserInfo, error)
	DeleteUser(ctx context.Context, name string, revision uint64) error

	// CreateKey makes a key with an id and a secret of its own, which are in the
	// credential and nowhere else.
	CreateKey(ctx context.Context, k iam.Key) (KeyInfo, iam.Credential, error)
	GetKey(ctx context.Context, id string) (KeyInfo, error)
	ListKeys(ctx context.Context, user, after string, limit int) (keys []KeyInfo, next string, err error)
	UpdateKey(ctx context.Context, k iam.Key, revision uint64) (KeyInfo, error)
	DeleteKey(ctx context.Context, id string, revision uint64) error
}

// UserInfo is a user as it is kept.
type UserInfo struct {
	iam.User
	Revision uint64
}

// KeyInfo is a key as it is kept, but for what its secret is known by.
type KeyInfo struct {
	iam.Key
	Revision uint64
}

// maxPageSize is how many users or keys a page may have.
const maxPageSize = 1000

// iamService implements pb.IAMServiceServer; what is about keys is in
// iamkey.go.
type iamService struct {
	pb.UnimplementedIAMServiceServer
	identities Identities
	now        func() time.Time
}

// caller is who calls. The guard has let nobody through without one.
func caller(ctx context.Context) iam.Principal {
	p, _ := iam.FromContext(ctx) // the zero Principal may do nothing
	return p
}

func (s *iamService) WhoAmI(ctx context.Context, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	p := caller(ctx)
	return &pb.WhoAmIResponse{
		User: p.User, KeyId: p.ID, Root: p.Root, Service: p.Service, CredentialType: credentialType(p.Via),
		Grants: protoGrants(effective(p.Grants())), ExpiresAt: protoTime(p.ExpiresAt), DeploymentId: s.identities.Deployment(),
	}, nil
}

func credentialType(via string) pb.CredentialType {
	switch via {
	case iam.ViaRoot:
		return pb.CredentialType_CREDENTIAL_TYPE_ROOT_KEY
	case iam.ViaKey:
		return pb.CredentialType_CREDENTIAL_TYPE_KEY
	case iam.ViaToken:
		return pb.CredentialType_CREDENTIAL_TYPE_TOKEN
	case iam.ViaCertificate:
		return pb.CredentialType_CREDENTIAL_TYPE_CERTIFICATE
	}
	return pb.CredentialType_CREDENTIAL_TYPE_UNSPECIFIED
}

func (s *iamService) IssueToken(ctx context.Context, r *pb.IssueTokenRequest) (*pb.IssueTokenResponse, error) {
	grants, err := grantsOf(r.GetGrants())
	if err != nil {
		return nil, err
	}
	ttl := iam.MaxTokenAge
	if d := r.GetTtl(); d != nil {
		if err := d.CheckValid(); err != nil {
			return nil, fault.New(fault.InvalidArgument, "ttl", "is no duration: %v", err)
		}
		if ttl = d.AsDuration(); ttl == 0 {
			return nil, fault.New(fault.InvalidArgument, "ttl", "is 0s; 1s to %v are allowed", iam.MaxTokenAge)
		}
	}
	token, expires, err := s.identities.IssueToken(caller(ctx), grants, ttl)
	if err != nil {
		return nil, err
	}
	return &pb.IssueTokenResponse{Token: token, ExpiresAt: protoTime(expires)}, nil
}

func (s *iamService) CreateUser(ctx context.Context, r *pb.CreateUserRequest) (*pb.CreateUserResponse, error) {
	grants, err := grantsOf(r.GetGrants())
	if err != nil {
		return nil, err
	}
	u, err := s.identities.CreateUser(ctx, iam.User{Name: r.GetName(), Disabled: r.GetDisabled(), Grants: grants, Certificates: r.GetCertificates()})
	if err != nil {
		return nil, err
	}
	return &pb.CreateUserResponse{User: protoUser(&u)}, nil
}

func (s *iamService) GetUser(ctx context.Context, r *pb.GetUserRequest) (*pb.GetUserResponse, error) {
	if err := userName("name", r.GetName()); err != nil {
		return nil, err
	}
	u, err := s.identities.GetUser(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &pb.GetUserResponse{User: protoUser(&u)}, nil
}

func (s *iamService) ListUsers(ctx context.Context, r *pb.ListUsersRequest) (*pb.ListUsersResponse, error) {
	limit, after, err := pageOf(r, usersListing)
	if err != nil {
		return nil, err
	}
	users, next, err := s.identities.ListUsers(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListUsersResponse{Users: make([]*pb.User, len(users)), NextPageToken: tokenOf(next, usersListing)}
	for i := range users {
		resp.Users[i] = protoUser(&users[i])
	}
	return resp, nil
}

func (s *iamService) UpdateUser(ctx context.Context, r *pb.UpdateUserRequest) (*pb.UpdateUserResponse, error) {
	if err := userName("name", r.GetName()); err != nil {
		return nil, err
	}
	grants, err := grantsOf(r.GetGrants())
	if err != nil {
		return nil, err
	}
	change := iam.User{Name: r.GetName(), Disabled: r.GetDisabled(), Grants: grants, Certificates: r.GetCertificates()}
	u, err := s.identities.UpdateUser(ctx, change, r.GetRevision())
	if err != nil {
		return nil, err
	}
	return &pb.UpdateUserResponse{User: protoUser(&u)}, nil
}

func (s *iamService) DeleteUser(ctx context.Context, r *pb.DeleteUserRequest) (*pb.DeleteUserResponse, error) {
	if err := userName("name", r.GetName()); err != nil {
		return nil, err
	}
	if err := s.identities.DeleteUser(ctx, r.GetName(), r.GetRevision()); err != nil {
		return nil, err
	}
	return &pb.DeleteUserResponse{}, nil
}

// userName checks what shall be a user's name.
func userName(field, name string) error {
	if err := iam.ValidateName(name); err != nil {
		return about(field, fieldFault(err))
	}
	return nil
}

// fieldFault makes of what package iam finds an error of ours.
func fieldFault(err error) error {
	var f *iam.FieldError
	if errors.As(err, &f) {
		return fault.New(fault.InvalidArgument, f.Field, "%s", f.Problem)
	}
	return err
}

// grantsOf reads grants. What they are of is checked; whether there is such a
// bucket doesn't matter.
func grantsOf(grants []*pb.Grant) ([]iam.Grant, error) {
	out := make([]iam.Grant, len(grants))
	for i, g := range grants {
		out[i] = iam.Grant{Role: roleOf(g.GetRole()), Bucket: g.GetBucket(), Prefix: g.GetPrefix()}
	}
	return out, fieldFault(iam.ValidateGrants(out))
}

// roleOf is a role; one that isn't known here is none.
func roleOf(r pb.Role) iam.Role {
	switch r {
	case pb.Role_ROLE_READONLY:
		return iam.ReadOnly
	case pb.Role_ROLE_READWRITE:
		return iam.ReadWrite
	case pb.Role_ROLE_ADMIN:
		return iam.Admin
	case pb.Role_ROLE_METRICS:
		return iam.Metrics
	}
	return ""
}

func protoRole(r iam.Role) pb.Role {
	switch r {
	case iam.ReadOnly:
		return pb.Role_ROLE_READONLY
	case iam.ReadWrite:
		return pb.Role_ROLE_READWRITE
	case iam.Admin:
		return pb.Role_ROLE_ADMIN
	case iam.Metrics:
		return pb.Role_ROLE_METRICS
	}
	return pb.Role_ROLE_UNSPECIFIED
}

func protoGrants(grants []iam.Grant) []*pb.Grant {
	out := make([]*pb.Grant, len(grants))
	for i, g := range grants {
		out[i] = &pb.Grant{Role: protoRole(g.Role), Bucket: g.Bucket, Prefix: g.Prefix}
	}
	return out
}

func protoUser(u *UserInfo) *pb.User {
	return &pb.User{
		Name: u.Name, Disabled: u.Disabled, Grants: protoGrants(u.Grants), Certificates: u.Certificates,
		CreatedAt: protoNanos(u.Created), Revision: u.Revision,
	}
}

// protoNanos is a Unix time in nanoseconds, of which 0 is none.
func protoNanos(ns int64) *timestamppb.Timestamp {
	if ns == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, ns))
}

// protoTime is a time, of which the zero Time is none.
func protoTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// The listings, as their tokens name them. That of keys is followed by the
// user's name, which has no NUL.
const (
	usersListing   = "users"
	bucketsListing = "own buckets"
	keysListing    = "keys\x00"
)

// pageOf reads what every request for a page has.
func pageOf(r interface {
	GetPageSize() int32
	GetPageToken() string
}, listing string) (limit int, after string, err error) {
	switch n := r.GetPageSize(); {
	case n == 0:
		limit = maxPageSize
	case n < 0 || n > maxPageSize:
		return 0, "", fault.New(fault.InvalidArgument, "page_size", "is %d; 1 to %d are allowed, 0 is %d", n, maxPageSize, maxPageSize)
	default:
		limit = int(n)
	}
	token := r.GetPageToken()
	if token == "" {
		return limit, "", nil
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(token)
	after, ours := strings.CutPrefix(string(text), listing+"\x00")
	if err != nil || !ours || after == "" || len(after) > maxPositionBytes || strings.ContainsAny(token, "\r\n") {
		return 0, "", fault.New(fault.InvalidArgument, "page_token", "was not given out for this listing")
	}
	return limit, after, nil
}

// maxPositionBytes is longer than any name that a token has.
const maxPositionBytes = 256

// tokenOf is the token of the page behind a position. It authorises nothing,
// and has nothing that its page hasn't shown.
func tokenOf(position, listing string) string {
	if position == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(listing + "\x00" + position))
}
