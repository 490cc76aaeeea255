package control

import (
	"context"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Providers implements AuthorityService.
func (a authorityService) Providers(context.Context, *rtaskv1.ProvidersRequest) (*rtaskv1.ProvidersResponse, error) {
	m := &rtaskv1.ProvidersResponse{}
	for _, p := range a.s.Options.Providers() {
		one := &rtaskv1.Provider{
			Name: p.Name, Issuer: p.Issuer, Bound: p.Bound, JwksFile: p.JWKSFile, Keys: int32(p.Keys), FetchedAt: timestamp(p.Fetched), Expired: p.Expired,
		}
		if p.Problem != nil {
			one.Problem = p.Problem.Error()
		}
		m.Providers = append(m.Providers, one)
	}
	return m, nil
}
