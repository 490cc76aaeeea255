package control

import (
	"fmt"
	"strings"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// soon is how long before the end of a certificate administrators are told of it. The gateway's is renewed long before.
const soon = 14 * 24 * time.Hour

// remoteAccess is what clients on other machines depend on; nil: none are let in.
func (s *Server) remoteAccess() *rtaskv1.RemoteAccess {
	trust := s.Authority.Trust()
	if len(trust.Roots) == 0 {
		return nil
	}
	m := &rtaskv1.RemoteAccess{Authority: s.Authority.Name(), Url: s.RemoteURL()}
	tell := func(whose string, until time.Time, then string) {
		switch left := time.Until(until); {
		case left <= 0:
			m.Problems = append(m.Problems, fmt.Sprintf("the certificate of %s expired on %s: %s", whose, until.Local().Format(time.DateTime), then))
		case left < soon:
			m.Problems = append(m.Problems, fmt.Sprintf("the certificate of %s ends on %s: %s", whose, until.Local().Format(time.DateTime), then))
		}
	}
	if all := s.Authority.Certificates(); len(all) > 0 {
		m.AuthorityExpiresAt = timestamp(all[0].NotAfter)
		tell("the authority", all[0].NotAfter, "rtaskctl ca rotate makes the next one")
	}
	if len(trust.Server) > 0 {
		m.ServerExpiresAt = timestamp(trust.Server[0].NotAfter)
		tell("the gateway", trust.Server[0].NotAfter, "the engine renews it if it has the authority's key")
	}
	if exists, unlocked := s.Authority.Exists(); exists && !unlocked {
		m.Problems = append(m.Problems, "the engine does not have the authority's key, so it can make no certificates: see the journal of rtask.service")
	}
	if cfg := s.Snapshot().Config; cfg != nil && len(cfg.Roles) == 0 {
		m.Problems = append(m.Problems, "the configuration has no roles, so clients may do nothing: see role in rtask.hcl(5)")
	}
	if m.Url == "" || strings.Contains(m.Url, "://localhost") {
		m.Problems = append(m.Problems, "clients on other machines cannot call "+m.Url+": set url of remote in rtask.hcl")
	}
	m.Problems = append(m.Problems, s.providerProblems()...)
	return m
}

// providerProblems are those of OpenID providers that keep their users from logging in.
func (s *Server) providerProblems() (all []string) {
	for _, p := range s.Options.Providers() {
		switch {
		case p.Keys == 0 && p.JWKSFile != "":
			all = append(all, fmt.Sprintf("logins of %s are refused, since its jwks_file cannot be used: %v", p.Name, p.Problem))
		case p.Keys == 0:
			all = append(all, fmt.Sprintf("logins of %s are refused, since its keys have not been fetched: see the journal of rtask-provider.service", p.Name))
		case p.Expired:
			all = append(all, fmt.Sprintf("logins of %s are refused, since its keys were last fetched on %s: see the journal of rtask-provider.service", p.Name, p.Fetched.Local().Format(time.DateTime)))
		}
	}
	return all
}
