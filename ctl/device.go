package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) deviceCommand() *cli.Command {
	return &cli.Command{
		Name: "device", Usage: "let devices in that wait with a code", UsageText: "rtaskctl device approve|deny|list",
		Subcommands: []*cli.Command{
			{
				Name: "approve", Usage: "give the device with CODE a certificate", UsageText: "rtaskctl device approve [--as NAME] [--machine] [--role ROLE…] [--yes] [--json] CODE",
				Description: "Shows first who asks: compare the key with the one that `rtaskctl login` shows there.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "as", Usage: "call it `NAME` (default: as it asks)"},
					boolFlag("it is a machine, which renews its certificate by itself", "machine"),
					roleFlag(),
					boolFlag("do not ask", "yes", "y"),
					jsonFlag(),
				},
				Action: a.deviceApprove,
			},
			{
				Name: "deny", Usage: "refuse the device with CODE", UsageText: "rtaskctl device deny [--json] CODE",
				Flags: []cli.Flag{jsonFlag()}, Action: a.deviceDeny,
			},
			{
				Name: "list", Usage: "list the devices that wait", UsageText: "rtaskctl device list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.deviceList,
			},
		},
	}
}

// deviceJSON is a device as --json prints it.
type deviceJSON struct {
	Code       string   `json:"code"`
	Name       string   `json:"name"`
	Key        string   `json:"key"`
	RemoteAddr string   `json:"remote_addr,omitempty"`
	ExpiresAt  string   `json:"expires_at"`
	Identity   string   `json:"identity,omitempty"`
	Roles      []string `json:"roles,omitempty"`
}

func deviceOf(d *rtaskv1.Device) deviceJSON {
	return deviceJSON{Code: d.GetUserCode(), Name: d.GetName(), Key: d.GetFingerprint(), RemoteAddr: d.GetRemoteAddr(), ExpiresAt: view.Time(d.GetExpiresAt())}
}

func (a *app) deviceApprove(c *cli.Context) error {
	code, err := oneArg(c, "CODE")
	if err != nil {
		return err
	}
	identity, err := identityOf(c, c.String("as"))
	if err != nil {
		return err
	}
	request := &rtaskv1.ApproveDeviceRequest{UserCode: code, Identity: identity, CheckOnly: true}
	r, err := callAuthority(a, c, authority.ApproveDevice, request)
	if err != nil {
		return err
	}
	d := r.GetDevice()
	if !c.Bool("yes") {
		kind, name := cutID(r.GetUri())
		if kind != "user" {
			name = kind + "/" + name
		}
		question := fmt.Sprintf("From %s, key %s, asks to be %q. Approve as %s %s?", printable(cmp.Or(d.GetRemoteAddr(), "this machine")), printable(d.GetFingerprint()),
			printable(d.GetName()), printable(name), withRoles(r.GetRoles()))
		if !a.canAsk() {
			a.say("%s", question)
			return &hintError{errors.New("there is no terminal to ask on"), "--yes approves without a question"}
		}
		yes, err := a.confirm(c.Context, question)
		if err != nil {
			return err
		}
		if !yes {
			return errors.New("nothing was decided: the device waits on")
		}
	}
	// The one that was seen, by its name and its key, and no other that has the code by now.
	request.CheckOnly, request.Fingerprint, request.Identity.Name = false, d.GetFingerprint(), cmp.Or(identity.GetName(), d.GetName())
	if r, err = callAuthority(a, c, authority.ApproveDevice, request); err != nil {
		return err
	}
	v := deviceOf(r.GetDevice())
	v.Identity, v.Roles = r.GetUri(), r.GetRoles()
	return a.result(c, v, fmt.Sprintf("%s approved as %s, %s\n", printable(r.GetDevice().GetUserCode()), printable(r.GetUri()), withRoles(r.GetRoles())))
}

// withRoles says which roles somebody has.
func withRoles(roles []string) string {
	switch len(roles) {
	case 0:
		return "without a role"
	case 1:
		return "with role " + printable(roles[0])
	default:
		return "with roles " + printable(strings.Join(roles, ", "))
	}
}

func (a *app) deviceDeny(c *cli.Context) error {
	code, err := oneArg(c, "CODE")
	if err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.DenyDevice, &rtaskv1.DenyDeviceRequest{UserCode: code})
	if err != nil {
		return err
	}
	return a.result(c, deviceOf(r.GetDevice()), printable(r.GetDevice().GetUserCode())+" denied\n")
}

func (a *app) deviceList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Devices, &rtaskv1.DevicesRequest{})
	if err != nil {
		return err
	}
	return listing[*rtaskv1.Device, deviceJSON]{
		view: deviceOf, none: "No device waits to be approved.",
		header: named("CODE", "NAME", "KEY", "FROM", "EXPIRES"),
		row: func(d *rtaskv1.Device) []string {
			return []string{d.GetUserCode(), d.GetName(), d.GetFingerprint(), d.GetRemoteAddr(), ago(d.GetExpiresAt())}
		},
	}.print(a, c, r.GetDevices())
}
