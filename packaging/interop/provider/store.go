package main

import (
	"context"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// user is a person with an account.
type user struct {
	name   string
	groups []string
}

// users is a storage.UserStore. The id of a user is the name: the example's device flow takes the one for the other.
type users map[string]user

func (u users) GetUserByID(id string) *storage.User {
	if _, ok := u[id]; !ok {
		return nil
	}
	return &storage.User{ID: id, Username: id, Password: password(id), Email: id + "@example.org", EmailVerified: true}
}

func (u users) GetUserByUsername(name string) *storage.User { return u.GetUserByID(name) }
func (u users) ExampleClientID() string                     { return storage.ServiceUserID }

func password(name string) string { return "password of " + name }

// store is the example's, which has no groups and one key, and whose public client has neither e-mail nor groups in its ID tokens.
type store struct {
	*storage.Storage
	users users
	keys  keys
	// lives are how long the ID tokens of clients are good.
	lives map[string]time.Duration
}

func newStore(all []user, lives map[string]time.Duration) *store {
	s := &store{users: users{}, lives: lives}
	for _, u := range all {
		s.users[u.name] = u
	}
	s.Storage = storage.NewStorage(s.users)
	return s
}

// client is one whose ID tokens say who the user is, as those of most providers do. It may use the device flow, too.
type client struct {
	op.Client
	life time.Duration
}

func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (client) IsScopeAllowed(scope string) bool     { return scope == "groups" }
func (c client) IDTokenLifetime() time.Duration     { return c.life }
func (c client) GrantTypes() []oidc.GrantType {
	return append(c.Client.GrantTypes(), oidc.GrantTypeDeviceCode)
}

func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{found, s.lives[id]}, nil
}

// SigningKey implements op.Storage.
func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return s.keys.signing(), nil }

// KeySet implements op.Storage.
func (s *store) KeySet(context.Context) ([]op.Key, error) { return s.keys.published(), nil }

// SignatureAlgorithms implements op.Storage.
func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.keys.signing().SignatureAlgorithm()}, nil
}

func (s *store) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	if err := s.Storage.SetUserinfoFromRequest(ctx, info, request, scopes); err != nil {
		return err
	}
	if groups := s.users[request.GetSubject()].groups; len(groups) > 0 {
		info.AppendClaims("groups", groups)
	}
	return nil
}
