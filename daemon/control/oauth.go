package control

import (
	"cmp"
	"context"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/issuer"
)

// actionToken is to get an access token, or to end one or a certificate.
const actionToken = "token"

// RolesFor returns the names of the roles that the configuration in force gives an identity which has groups beside its own,
// "PROVIDER" and "PROVIDER:GROUP".
func (s *Server) RolesFor(id authority.Identity, groups []string) []string {
	c := clientOf(id)
	c.Groups = append(c.Groups, groups...)
	var names []string
	for _, r := range rolesOf(s.Snapshot().Config, c) {
		names = append(names, r.Name)
	}
	return names
}

// EndRevoked ends what is under way for certificates that their holder has revoked, and returns when it has ended.
func (s *Server) EndRevoked(ctx context.Context, r authority.Revocation) { s.endRevoked(ctx, r, r.URI) }

// AuditIssuer writes what became of a request to the issuer, from an address, of a client with a certificate.
func (s *Server) AuditIssuer(id authority.Identity, remote string, r issuer.Reply) {
	d := decision{
		decision: accepted, action: actionToken, reason: r.Proof, subject: id.Name(), serial: id.Serial, provider: id.Provider, remote: remote,
		// A client has a token every hour, and may have as many as it asks for.
		moot: true,
	}
	if r.Proof == "renewal" {
		d.action, d.moot = actionEnroll, false
		s.Enrolled(r.Proof, cmp.Or(r.Kind, accepted))
	}
	if r.Err != nil {
		s.Logger.Error("cannot serve a client's certificate", "proof", r.Proof, "error", r.Err)
	}
	if r.Kind != "" {
		d.decision, d.kind = refused, rtaskv1.Kind(r.Kind)
		if d.reason != "" {
			d.reason += ": "
		}
		d.reason += r.Reason
		s.RefusedRemote(r.Kind, 1)
	}
	s.audit(d)
}
