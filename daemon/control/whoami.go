package control

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
)

// WhoAmI implements JobService.
func (s *Server) WhoAmI(ctx context.Context, _ *rtaskv1.WhoAmIRequest) (*rtaskv1.WhoAmIResponse, error) {
	c := callOf(ctx)
	m := &rtaskv1.WhoAmIResponse{Kind: c.Kind.String(), ServerTime: timestamp(time.Now())}
	for procedure, rule := range auth.Procedures() {
		name := path.Base(procedure)
		may := rule.Allows(c.Kind)
		if c.Kind == auth.Remote {
			may = rule.Remote == auth.Always || len(allowing(c.held, rule, name)) > 0
		}
		if may && strings.HasPrefix(procedure, "/"+rtaskv1connect.JobServiceName+"/") {
			m.Methods = append(m.Methods, name)
		}
	}
	slices.Sort(m.Methods)
	if c.Kind != auth.Remote {
		m.User = c.Name()
		return m, nil
	}
	is := c.Client
	m.Identity, m.Provider, m.ProviderSubject, m.Machine, m.Url = cmp.Or(is.URI, is.DN), is.Provider, is.ProviderSubject, is.Machine, s.RemoteURL()
	m.CertificateSerial, m.CertificateExpiresAt, m.TokenExpiresAt = is.Serial, timestamp(is.Until), timestamp(is.TokenUntil)
	m.Groups = is.Groups
	for _, r := range c.held {
		m.Roles = append(m.Roles, &rtaskv1.Role{Name: r.Name, Tasks: r.Tasks, Methods: r.Methods, Jobs: string(r.Jobs), Commands: r.Commands, RunAs: r.RunAs})
	}
	return m, nil
}
