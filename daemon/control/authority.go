package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/join"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// Secrets is where the keys of remote access are kept.
type Secrets struct {
	// Sealed says that systemd keeps them, and hands them to the engine as credentials (systemd.exec(5), LoadCredentialEncrypted=).
	Sealed bool
	// Keep keeps one by itself, by the name of its credential, where Sealed is false. Folder is where.
	Keep   func(name string, content []byte) error
	Folder string
	// Gateway returns a certificate signing request of the key that the gateway has got already, nil: it has none.
	Gateway func() ([]byte, error)
	// Tokens puts the secret of the keys that sign tokens in force.
	Tokens func(secret []byte) error
}

// The names of the credentials. The next authority's key is one only while the authority is rotated.
const (
	CredentialNextAuthority = "ca.key.next"
	CredentialAuthority     = "ca.key"
	CredentialTokens        = "token.key"
	CredentialGateway       = "remote.key"
)

// authorityService implements AuthorityService.
type authorityService struct{ s *Server }

// authorityError gives an error of the authority its code and kind.
func authorityError(err error) error {
	if r, ok := errors.AsType[*authority.Refusal](err); ok {
		code := connect.CodePermissionDenied
		if r.Kind == authority.KindBadRequest {
			code = connect.CodeInvalidArgument
		}
		return fail(code, rtaskv1.Kind(r.Kind), err)
	}
	switch {
	case errors.Is(err, authority.ErrNone), errors.Is(err, authority.ErrLocked):
		return coded(connect.CodeFailedPrecondition, err)
	case errors.Is(err, authority.ErrExists):
		return fail(connect.CodeAlreadyExists, rtaskv1.KindConflict, err)
	case errors.Is(err, authority.ErrNoSuch):
		return fail(connect.CodeNotFound, rtaskv1.KindNotFound, err)
	case errors.Is(err, authority.ErrBadName), errors.Is(err, authority.ErrAmbiguous), errors.Is(err, authority.ErrOtherKey), errors.Is(err, authority.ErrBadKey):
		return coded(connect.CodeInvalidArgument, err)
	case errors.Is(err, authority.ErrFull):
		return coded(connect.CodeResourceExhausted, err)
	default:
		return coded(connect.CodeInternal, err)
	}
}

// remoteAddress is how clients call the remote API, as HOST:PORT.
func (s *Server) remoteAddress() (string, error) {
	u, err := url.Parse(s.RemoteURL())
	if err != nil {
		return "", err
	}
	address := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
	return address, join.CheckAddress(address)
}

// Show implements AuthorityService.
func (a authorityService) Show(context.Context, *rtaskv1.ShowRequest) (*rtaskv1.ShowResponse, error) {
	return a.show(), nil
}

func (a authorityService) show() *rtaskv1.ShowResponse {
	s := a.s
	exists, unlocked := s.Authority.Exists()
	m := &rtaskv1.ShowResponse{Exists: exists, Unlocked: unlocked, Sealed: s.Secrets.Sealed}
	if !exists {
		return m
	}
	newest := s.Authority.Certificates()[0]
	m.Name, m.Fingerprint, m.ExpiresAt = s.Authority.Name(), authority.Fingerprint(newest.RawSubjectPublicKeyInfo), timestamp(newest.NotAfter)
	m.Url = s.RemoteURL()
	if !s.Secrets.Sealed {
		m.StateFolder = s.Secrets.Folder
	}
	if server := s.Authority.Trust().Server; len(server) > 0 {
		m.ServerExpiresAt = timestamp(server[0].NotAfter)
	}
	return m
}

// Init implements AuthorityService.
func (a authorityService) Init(ctx context.Context, r *rtaskv1.InitRequest) (*rtaskv1.InitResponse, error) {
	s := a.s
	s.initializing.Lock() // so that of two the second one keeps no keys
	defer s.initializing.Unlock()
	if exists, _ := s.Authority.Exists(); exists {
		return nil, authorityError(authority.ErrExists)
	}
	name := cmp.Or(r.Name, machineDomain())
	if err := authority.CheckDomain(name); err != nil {
		return nil, authorityError(err)
	}
	if len(r.TokenKey) != token.SecretLen {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "token_key has %d bytes: it is %d random ones", len(r.TokenKey), token.SecretLen)
	}
	if s.Secrets.Sealed != (len(r.GatewayKey) == 0) {
		return nil, connect.NewError(connect.CodeInvalidArgument, "gateway_key is there if the engine is to keep the keys, and only then: see sealed of Show")
	}
	if err := authority.CheckKey(r.AuthorityKey); err != nil {
		return nil, authorityError(err)
	}
	if _, err := authority.ParseRequest(r.GatewayCsr); err != nil {
		return nil, authorityError(err)
	}
	keys, csr := map[string][]byte{CredentialAuthority: r.AuthorityKey, CredentialTokens: r.TokenKey, CredentialGateway: r.GatewayKey}, r.GatewayCsr
	its, err := s.Secrets.Gateway()
	if err != nil {
		return nil, coded(connect.CodeInternal, fmt.Errorf("cannot use the gateway's key: %w", err))
	}
	if its != nil {
		csr = its
		delete(keys, CredentialGateway)
	}
	for name, content := range keys {
		if err := s.keep(name, content); err != nil {
			return nil, err
		}
	}
	if err := s.Authority.Init(name, r.AuthorityKey); err != nil {
		return nil, authorityError(err)
	}
	if err := s.Secrets.Tokens(r.TokenKey); err != nil {
		return nil, coded(connect.CodeInternal, err)
	}
	if err := s.Authority.SetServer(csr); err != nil {
		return nil, authorityError(err)
	}
	s.Logger.Info("authority made", "name", name, "by", callOf(ctx).Name())
	return &rtaskv1.InitResponse{Authority: a.show()}, nil
}

// keep keeps a key where that is the engine's to do.
func (s *Server) keep(name string, content []byte) error {
	if s.Secrets.Sealed {
		return nil
	}
	if err := s.Secrets.Keep(name, content); err != nil {
		return coded(connect.CodeInternal, fmt.Errorf("cannot keep a key: %w", err))
	}
	return nil
}

// machineDomain is a trust domain named after this machine.
func machineDomain() string {
	host, _ := os.Hostname() // without one, there is no name
	return strings.ToLower(host)
}

// grantOf is what a certificate for an identity says. Its roles are those of the configuration.
func (a authorityService) grantOf(i *rtaskv1.Identity) (authority.Grant, error) {
	g := authority.Grant{Name: i.GetName(), Kind: authority.User}
	switch i.GetKind() {
	case rtaskv1.IdentityKind_IDENTITY_KIND_UNSPECIFIED, rtaskv1.IdentityKind_IDENTITY_KIND_USER:
	case rtaskv1.IdentityKind_IDENTITY_KIND_MACHINE:
		g.Kind = authority.Machine
	case rtaskv1.IdentityKind_IDENTITY_KIND_HOST:
		g.Kind = authority.Host
	default:
		return g, connect.NewError(connect.CodeInvalidArgument, "this engine does not know this kind of identity")
	}
	cfg := a.s.Snapshot().Config
	for _, name := range i.GetRoles() {
		if cfg == nil {
			return g, noTasks()
		}
		if !slices.ContainsFunc(cfg.Roles, func(r *config.Role) bool { return r.Name == name }) {
			return g, fail(connect.CodeInvalidArgument, rtaskv1.KindBadRequest, fmt.Errorf("the configuration has no role %.80q", name))
		}
		if !slices.Contains(g.Roles, name) {
			g.Roles = append(g.Roles, name)
		}
	}
	return g, nil
}

// Issue implements AuthorityService.
func (a authorityService) Issue(ctx context.Context, r *rtaskv1.IssueRequest) (*rtaskv1.IssueResponse, error) {
	g, err := a.grantOf(r.Identity)
	if err != nil {
		return nil, err
	}
	address, err := a.s.remoteAddress()
	if err != nil {
		return nil, connect.Errorf(connect.CodeFailedPrecondition, "remote.url cannot be where others enrol: %v", err)
	}
	token, until, err := a.s.Authority.NewJoin(g, address)
	if err != nil {
		return nil, authorityError(err)
	}
	uri := a.s.Authority.URI(g)
	a.s.Logger.Info("join token made", "identity", uri, "by", callOf(ctx).Name())
	return &rtaskv1.IssueResponse{JoinToken: token.Text(), ExpiresAt: timestamp(until), Uri: uri, Address: address}, nil
}

// Sign implements AuthorityService.
func (a authorityService) Sign(ctx context.Context, r *rtaskv1.SignRequest) (*rtaskv1.CertificateResponse, error) {
	g, err := a.grantOf(r.Identity)
	if err != nil {
		return nil, err
	}
	g.Proof = "administrator"
	issued, err := a.s.Authority.Issue(r.Csr, g)
	return a.certificate(ctx, g.Proof, issued, err)
}

// Renew implements AuthorityService.
func (a authorityService) Renew(ctx context.Context, r *rtaskv1.RenewRequest) (*rtaskv1.CertificateResponse, error) {
	issued, err := a.s.Authority.Again(r.Certificate)
	return a.certificate(ctx, "renewal", issued, err)
}

// certificate answers with a certificate that an administrator asked for.
func (a authorityService) certificate(ctx context.Context, proof string, i authority.Issued, err error) (*rtaskv1.CertificateResponse, error) {
	if err != nil {
		return nil, authorityError(err)
	}
	d := callOf(ctx).decision()
	d.decision, d.action, d.subject, d.serial, d.reason = accepted, actionEnroll, i.Identity.URI, i.Identity.Serial, proof
	a.s.audit(d)
	return &rtaskv1.CertificateResponse{
		Certificate: i.Certificate, Authorities: i.Authorities, Uri: i.Identity.URI, Serial: i.Identity.Serial, ExpiresAt: timestamp(i.Identity.Until),
	}, nil
}

// List implements AuthorityService.
func (a authorityService) List(context.Context, *rtaskv1.ListCertificatesRequest) (*rtaskv1.ListCertificatesResponse, error) {
	if exists, _ := a.s.Authority.Exists(); !exists {
		return nil, authorityError(authority.ErrNone)
	}
	all := a.s.Authority.List()
	slices.SortFunc(all, func(x, y authority.Enrolment) int {
		return cmp.Or(y.Issued.Compare(x.Issued), strings.Compare(x.Serial, y.Serial))
	})
	return &rtaskv1.ListCertificatesResponse{Certificates: certificateMessages(all)}, nil
}

func certificateMessages(all []authority.Enrolment) []*rtaskv1.Certificate {
	now := time.Now()
	var messages []*rtaskv1.Certificate
	for _, e := range all {
		messages = append(messages, &rtaskv1.Certificate{
			Serial: e.Serial, Uri: e.URI, IssuedAt: timestamp(e.Issued), ExpiresAt: timestamp(e.Until), LastUsedAt: timestamp(e.LastUsed), State: e.State(now),
			RenewedBy: e.RenewedBy, RevokedAt: timestamp(e.Revoked), RevokedBy: e.RevokedBy, Proof: e.Grant.Proof, RemoteAddr: e.Grant.Remote,
			Provider: e.Grant.Provider, ProviderSubject: e.Grant.ProviderSubject, Roles: e.Grant.Roles,
		})
	}
	return messages
}

// Revoke implements AuthorityService. It returns when nobody waits any more who came with one of the certificates, and nothing of the
// identity in a queue.
func (a authorityService) Revoke(ctx context.Context, r *rtaskv1.RevokeRequest) (*rtaskv1.RevokeResponse, error) {
	by := callOf(ctx).Name()
	a.s.revoking.Add(1)
	defer func() { a.s.revoking.Add(-1); a.s.Changed(); a.s.Recheck() }()
	revoked, err := a.s.Authority.Revoke(r.Certificate, by)
	if err != nil {
		return nil, authorityError(err)
	}
	streams, queued := a.s.endRevoked(ctx, revoked, by)
	for _, e := range revoked.Certificates {
		a.s.Logger.Info("certificate revoked", "identity", e.URI, "serial", e.Serial, "by", by)
	}
	return &rtaskv1.RevokeResponse{
		Uri: revoked.URI, Whole: revoked.Whole, Certificates: certificateMessages(revoked.Certificates), JoinTokens: int32(revoked.Joins),
		Streams: int32(streams), QueuedJobs: int32(queued),
	}, nil
}

// endRevoked ends the calls under way of revoked certificates and, of an identity that was revoked as a whole, its jobs that wait in a
// queue. It returns when they have ended, and how many there were.
func (s *Server) endRevoked(ctx context.Context, r authority.Revocation, by string) (streams, queued int) {
	for _, e := range r.Certificates {
		streams += s.waits.end(ctx, remoteCalls(e.URI, e.Serial))
	}
	if r.Whole {
		// The queue is emptied even if the caller has gone.
		queued = s.Jobs.StopQueued(context.WithoutCancel(ctx), func(o job.Owner) bool { return o.Subject == r.URI || o.Identity == r.URI }, job.StopOptions{By: by + ", who revoked its certificates"})
	}
	return streams, queued
}

// Rotate implements AuthorityService.
func (a authorityService) Rotate(ctx context.Context, r *rtaskv1.RotateRequest) (*rtaskv1.RotateResponse, error) {
	s := a.s
	s.initializing.Lock()
	defer s.initializing.Unlock()
	if len(r.GatewayCsr) > 0 {
		return a.rotateGateway(ctx, r)
	}
	if err := authority.CheckKey(r.AuthorityKey); err != nil {
		return nil, authorityError(err)
	}
	// In this order: whenever the engine ends, one of the two is the key of the authority that is on record.
	if err := s.keep(CredentialNextAuthority, r.AuthorityKey); err != nil {
		return nil, err
	}
	// Calls with certificates that are not good any more end with it, see Recheck.
	if err := s.Authority.Rotate(r.AuthorityKey, r.Distrust); err != nil {
		return nil, authorityError(err)
	}
	if err := s.keep(CredentialAuthority, r.AuthorityKey); err != nil {
		return nil, err
	}
	s.Logger.Info("authority rotated", "name", s.Authority.Name(), "distrust", r.Distrust, "by", callOf(ctx).Name())
	return &rtaskv1.RotateResponse{Authority: a.show()}, nil
}

// rotateGateway makes a certificate for a new key of the gateway's.
func (a authorityService) rotateGateway(ctx context.Context, r *rtaskv1.RotateRequest) (*rtaskv1.RotateResponse, error) {
	s := a.s
	if len(r.AuthorityKey) > 0 || r.Distrust {
		return nil, connect.NewError(connect.CodeInvalidArgument, "gateway_csr excludes authority_key and distrust")
	}
	if !s.Secrets.Sealed {
		return nil, connect.NewError(connect.CodeInvalidArgument, "this engine keeps the gateway's key itself: it makes one at its start if there is none")
	}
	if exists, unlocked := s.Authority.Exists(); exists && !unlocked {
		return nil, authorityError(authority.ErrLocked)
	}
	if err := s.Authority.SetServer(r.GatewayCsr); err != nil {
		return nil, authorityError(err)
	}
	s.Logger.Info("the gateway has a new key", "by", callOf(ctx).Name())
	return &rtaskv1.RotateResponse{Authority: a.show()}, nil
}

// Export implements AuthorityService.
func (a authorityService) Export(context.Context, *rtaskv1.ExportRequest) (*rtaskv1.ExportResponse, error) {
	certificates := a.s.Authority.PEM()
	if len(certificates) == 0 {
		return nil, authorityError(authority.ErrNone)
	}
	return &rtaskv1.ExportResponse{Certificates: certificates, RevocationLists: a.s.Authority.CRLs()}, nil
}
