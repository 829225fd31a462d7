package api

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// Whose a key is, and whether it is a service key, its id doesn't say: so what
// is permitted of a key that is there is decided here, once it is read. Neither
// changes while there is a key of that id, and no id is used twice. Who may not
// is told the same whether there is such a key or not.

func (s *iamService) CreateKey(ctx context.Context, r *pb.CreateKeyRequest) (*pb.CreateKeyResponse, error) {
	p := caller(ctx)
	user := r.GetUser()
	if user == "" {
		user = p.User
	}
	if err := userName("user", user); err != nil {
		return nil, err
	}
	grants, err := grantsOf(r.GetGrants())
	if err != nil {
		return nil, err
	}
	switch {
	case r.GetService() && len(grants) == 0:
		return nil, fault.New(fault.InvalidArgument, "grants", "are missing: a service key has its own")
	case !r.GetService() && len(grants) > 0:
		return nil, fault.New(fault.InvalidArgument, "grants", "are for service keys; other keys have their user's")
	}
	if err := s.roomForOwn(ctx, p, user, grants); err != nil {
		return nil, err
	}
	expires, err := s.expiry(p, r.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	if expires != 0 && expires <= s.now().UnixNano() {
		return nil, fault.New(fault.InvalidArgument, "expires_at", "is not ahead")
	}
	k, credential, err := s.identities.CreateKey(ctx, iam.Key{
		User: user, Service: r.GetService(), Grants: grants, Expires: expires, Comment: r.GetComment(),
	})
	if err != nil {
		return nil, err
	}
	return &pb.CreateKeyResponse{Key: protoKey(&k), Credential: credential.String()}, nil
}

// What someone may keep without an admin's doing: every node holds all keys in
// memory, and there is a most of them, which a few users shall not use up.
const (
	maxOwnKeys   = 100 // with those that an admin has made
	maxOwnGrants = 16  // of one key
)

// roomForOwn refuses what is more than someone may keep. Calls at once may exceed
// the number of keys, up to what the index allows.
func (s *iamService) roomForOwn(ctx context.Context, p iam.Principal, user string, grants []iam.Grant) error {
	if iam.Allowed(p, iam.IAMWrite, "", "") {
		return nil
	}
	if err := checkOwnGrants(grants); err != nil {
		return err
	}
	keys, _, err := s.identities.ListKeys(ctx, user, "", maxOwnKeys)
	if err == nil && len(keys) >= maxOwnKeys {
		err = fault.New(fault.QuotaExceeded, "key", "can't be made: you have %d, and beyond %d an admin makes them", len(keys), maxOwnKeys)
	}
	return err
}

func checkOwnGrants(grants []iam.Grant) error {
	if len(grants) > maxOwnGrants {
		return fault.New(fault.InvalidArgument, "grants", "are %d; you may give a key %d, and an admin more", len(grants), maxOwnGrants)
	}
	return nil
}

// expiry reads when a key that p makes or changes shall expire; 0 is never.
// Someone's own keys don't outlive what they were made with: else a key that
// shall end would not.
func (s *iamService) expiry(p iam.Principal, t *timestamppb.Timestamp) (int64, error) {
	var expires int64
	if t != nil {
		if err := t.CheckValid(); err != nil {
			return 0, fault.New(fault.InvalidArgument, "expires_at", "is no time: %v", err)
		}
		at := t.AsTime()
		if expires = at.UnixNano(); expires <= 0 || !time.Unix(0, expires).Equal(at) {
			return 0, fault.New(fault.InvalidArgument, "expires_at", "is not between 1970 and 2262")
		}
	}
	if p.ExpiresAt.IsZero() || iam.Allowed(p, iam.IAMWrite, "", "") {
		return expires, nil
	}
	last := p.ExpiresAt.UnixNano()
	if expires > last {
		return 0, fault.New(fault.InvalidArgument, "expires_at", "is after that of the key that the call was made with, %s", p.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if expires == 0 {
		expires = last
	}
	return expires, nil
}

func (s *iamService) GetKey(ctx context.Context, r *pb.GetKeyRequest) (*pb.GetKeyResponse, error) {
	k, err := s.findKey(ctx, iam.IAMRead, r.GetId(), ownKey)
	if err != nil {
		return nil, err
	}
	return &pb.GetKeyResponse{Key: protoKey(&k)}, nil
}

// findKey reads a key that the caller may do a with, or else, as its own, what
// own allows.
func (s *iamService) findKey(ctx context.Context, a iam.Action, id string, own func(iam.Principal, *KeyInfo) bool) (KeyInfo, error) {
	if err := iam.ValidateID(id); err != nil {
		return KeyInfo{}, fault.New(fault.InvalidArgument, "id", "is not a key's: %s", strings.TrimPrefix(err.Error(), iam.ErrCredential.Error()+": "))
	}
	p := caller(ctx)
	refused := fault.Wrap(fault.PermissionDenied, "", iam.Authorize(p, a, "", ""))
	k, err := s.identities.GetKey(ctx, id)
	switch {
	case refused == nil:
		return k, err
	case err != nil && fault.KindOf(err) != fault.NotFound:
		return KeyInfo{}, err
	case err != nil || !own(p, &k):
		return KeyInfo{}, refused
	}
	return k, nil
}

// ownKey is what a caller may see of its own: as in checkListKeys, and the key that
// it came with.
func ownKey(p iam.Principal, k *KeyInfo) bool {
	return k.User == p.User && (k.ID == p.ID || iam.Allowed(p, iam.IAMSelfKeys, "", ""))
}

// ownService is what a caller may change of its own.
func ownService(p iam.Principal, k *KeyInfo) bool {
	return k.Service && k.User == p.User && iam.Allowed(p, iam.IAMSelfKeys, "", "")
}

func (s *iamService) ListKeys(ctx context.Context, r *pb.ListKeysRequest) (*pb.ListKeysResponse, error) {
	if r.GetUser() != "" {
		if err := userName("user", r.GetUser()); err != nil {
			return nil, err
		}
	}
	limit, after, err := pageOf(r, keysListing+r.GetUser())
	if err != nil {
		return nil, err
	}
	keys, next, err := s.identities.ListKeys(ctx, r.GetUser(), after, limit)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListKeysResponse{Keys: make([]*pb.Key, len(keys)), NextPageToken: tokenOf(next, keysListing+r.GetUser())}
	for i := range keys {
		resp.Keys[i] = protoKey(&keys[i])
	}
	return resp, nil
}

func (s *iamService) UpdateKey(ctx context.Context, r *pb.UpdateKeyRequest) (*pb.UpdateKeyResponse, error) {
	old, err := s.findKey(ctx, iam.IAMWrite, r.GetId(), ownService)
	if err != nil {
		return nil, err
	}
	grants, err := grantsOf(r.GetGrants())
	if err != nil {
		return nil, err
	}
	if old.Service && len(grants) == 0 {
		return nil, fault.New(fault.InvalidArgument, "grants", "are missing: a service key has its own")
	}
	revision := r.GetRevision()
	if p := caller(ctx); !iam.Allowed(p, iam.IAMWrite, "", "") {
		if err := checkOwnGrants(grants); err != nil {
			return nil, err
		}
		if old.Disabled && !r.GetDisabled() {
			return nil, fault.New(fault.PermissionDenied, "", "key %s is disabled, and only an admin enables it again", old.ID)
		}
		if revision == 0 {
			revision = old.Revision // an admin may disable it meanwhile
		}
	}
	expires, err := s.expiry(caller(ctx), r.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	k, err := s.identities.UpdateKey(ctx, iam.Key{
		ID: r.GetId(), Disabled: r.GetDisabled(), Grants: grants, Expires: expires, Comment: r.GetComment(),
	}, revision)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateKeyResponse{Key: protoKey(&k)}, nil
}

func (s *iamService) DeleteKey(ctx context.Context, r *pb.DeleteKeyRequest) (*pb.DeleteKeyResponse, error) {
	if _, err := s.findKey(ctx, iam.IAMWrite, r.GetId(), ownService); err != nil {
		return nil, err
	}
	if err := s.identities.DeleteKey(ctx, r.GetId(), r.GetRevision()); err != nil {
		return nil, err
	}
	return &pb.DeleteKeyResponse{}, nil
}

func protoKey(k *KeyInfo) *pb.Key {
	return &pb.Key{
		Id: k.ID, User: k.User, Service: k.Service, Grants: protoGrants(k.Grants),
		CreatedAt: protoNanos(k.Created), ExpiresAt: protoNanos(k.Expires), LastUsedAt: protoNanos(k.LastUsed),
		Disabled: k.Disabled, Comment: k.Comment, Revision: k.Revision,
	}
}
