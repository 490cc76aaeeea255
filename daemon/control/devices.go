package control

import (
	"cmp"
	"context"
	"slices"
	"strings"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
)

// Devices implements AuthorityService.
func (a authorityService) Devices(context.Context, *rtaskv1.DevicesRequest) (*rtaskv1.DevicesResponse, error) {
	all := a.s.Authority.Devices()
	slices.SortFunc(all, func(x, y authority.Device) int {
		return cmp.Or(x.Until.Compare(y.Until), strings.Compare(x.UserCode, y.UserCode))
	})
	reply := &rtaskv1.DevicesResponse{}
	for _, d := range all {
		reply.Devices = append(reply.Devices, deviceMessage(d))
	}
	return reply, nil
}

func deviceMessage(d authority.Device) *rtaskv1.Device {
	return &rtaskv1.Device{UserCode: d.UserCode, Name: d.Name, Fingerprint: d.Fingerprint, RemoteAddr: d.Remote, ExpiresAt: timestamp(d.Until)}
}

// ApproveDevice implements AuthorityService.
func (a authorityService) ApproveDevice(ctx context.Context, r *rtaskv1.ApproveDeviceRequest) (*rtaskv1.ApproveDeviceResponse, error) {
	g, err := a.grantOf(r.Identity)
	if err != nil {
		return nil, err
	}
	d, err := a.s.Authority.Device(r.UserCode)
	if err != nil {
		return nil, authorityError(err)
	}
	g.Name = cmp.Or(g.Name, d.Name)
	if err := authority.CheckName(g.Name); err != nil {
		return nil, authorityError(err)
	}
	uri := a.s.Authority.URI(g)
	if !r.CheckOnly {
		if d, err = a.s.Authority.Approve(r.UserCode, r.Fingerprint, g); err != nil {
			return nil, authorityError(err)
		}
		a.s.Logger.Info("device approved", "identity", uri, "key", d.Fingerprint, "address", d.Remote, "by", callOf(ctx).Name())
	}
	roles := slices.Clone(g.Roles)
	if cfg := a.s.Snapshot().Config; cfg != nil {
		for _, r := range cfg.RolesOf(uri, "", nil) {
			roles = append(roles, r.Name)
		}
	}
	slices.Sort(roles)
	return &rtaskv1.ApproveDeviceResponse{Device: deviceMessage(d), Uri: uri, Roles: slices.Compact(roles)}, nil
}

// DenyDevice implements AuthorityService.
func (a authorityService) DenyDevice(ctx context.Context, r *rtaskv1.DenyDeviceRequest) (*rtaskv1.DenyDeviceResponse, error) {
	d, err := a.s.Authority.Deny(r.UserCode)
	if err != nil {
		return nil, authorityError(err)
	}
	a.s.Logger.Info("device denied", "name", d.Name, "key", d.Fingerprint, "address", d.Remote, "by", callOf(ctx).Name())
	return &rtaskv1.DenyDeviceResponse{Device: deviceMessage(d)}, nil
}
