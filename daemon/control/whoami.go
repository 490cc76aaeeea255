package control

import (
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
		if strings.HasPrefix(procedure, "/"+rtaskv1connect.JobServiceName+"/") && rule.Allows(c.Kind) {
			m.Methods = append(m.Methods, path.Base(procedure))
		}
	}
	slices.Sort(m.Methods)
	m.User = c.Name()
	return m, nil
}
