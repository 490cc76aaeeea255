package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/issuer"
)

// openTokens opens what makes and verifies tokens. Without its secret, which `rtaskctl ca init` makes, it can do neither yet.
func (e *engine) openTokens() {
	e.tokens = token.New(filepath.Join(e.StateDir, "token.keys"))
	secret, err := e.credential(control.CredentialTokens)
	if err == nil && secret != nil {
		err = e.unlockTokens(secret)
	}
	if err != nil {
		e.Logger.Error("no tokens can be made", "error", err)
	}
}

// unlockTokens puts the secret of the signing keys in force.
func (e *engine) unlockTokens(secret []byte) error {
	err := e.tokens.Unlock(secret)
	if errors.Is(err, token.ErrKeysLost) {
		e.Logger.Warn(err.Error())
		err = nil
	}
	return err
}

// configureTokens puts what the configuration says of tokens in force. Where only authorities of others are named, nobody runs
// `rtaskctl ca init`, so the engine makes the secret of the signing keys itself, in its own folder.
func (e *engine) configureTokens(c *config.Config) {
	e.tokens.Configure(remoteURL(c), c.Remote.TokenTTL)
	others := slices.ContainsFunc(c.Remote.Authorities, func(a string) bool { return a != config.OwnAuthority })
	own, _ := e.authority.Exists()
	kept, err := e.credential(control.CredentialTokens)
	if !others || own || kept != nil || err != nil {
		return
	}
	secret := make([]byte, token.SecretLen)
	rand.Read(secret)
	err = e.secrets().Keep(control.CredentialTokens, secret)
	if err == nil {
		err = e.unlockTokens(secret)
	}
	if err != nil {
		e.Logger.Error("no tokens can be made", "error", err)
		return
	}
	e.Logger.Info("the secret of the keys that sign tokens is in the engine's folder, since this machine has no authority of its own", "file", filepath.Join(e.StateDir, control.CredentialTokens))
}

// oauth serves the paths of the issuer to clients whose certificate is good.
func (e *engine) oauth() func(http.ResponseWriter, *http.Request, control.Shown) {
	o := &issuer.OAuth{
		Authority: e.authority, Tokens: e.tokens, Providers: e.providers,
		Roles:        func(id authority.Identity, groups []string) []string { return e.control.RolesFor(id, groups) },
		Ended:        func(ctx context.Context, r authority.Revocation) { e.control.EndRevoked(ctx, r) },
		TokenRevoked: func() { e.control.Recheck() },
		Audit:        func(c issuer.Client, r issuer.Reply) { e.control.AuditIssuer(c.Identity, c.Remote, r) },
	}
	handler := o.Handler()
	return func(w http.ResponseWriter, r *http.Request, s control.Shown) {
		c := issuer.Client{Identity: s.Identity, Leaf: s.Leaf, Remote: s.Address}
		handler.ServeHTTP(w, r.WithContext(issuer.WithClient(r.Context(), c)))
	}
}
