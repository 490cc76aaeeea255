package ctl

import (
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) rotateKey() *cli.Command {
	return &cli.Command{
		Name: "rotate", Usage: "give a key a new secret and print it (only this once)",
		UsageText: "rtaskctl key rotate [--overlap TIME] [--expires TIME] [--json] NAME|ID",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "overlap", Usage: "keep the old secret valid for `TIME`, such as 24h (default: revoke it now)"},
			&cli.StringFlag{Name: "expires", Usage: "let the key expire after `TIME` from now (default: unchanged)"},
			jsonFlag(),
		},
		Action: a.keyRotate,
	}
}

func (a *app) keyRotate(c *cli.Context) error {
	ref, err := oneArg(c, "NAME|ID")
	if err != nil {
		return err
	}
	request := &rtaskv1.RotateKeyRequest{Key: ref}
	for _, span := range []struct {
		flag string
		to   **durationpb.Duration
	}{{"overlap", &request.Overlap}, {"expires", &request.ExpiresIn}} {
		if !c.IsSet(span.flag) {
			continue
		}
		d, err := parseSpan(c.String(span.flag))
		if err != nil {
			return misuse(c, "--%s: %v", span.flag, err)
		}
		*span.to = durationpb.New(d)
	}
	r, err := call(a, c, jobs.RotateKey, request)
	if err != nil {
		return err
	}
	return a.printSecret(c, r.GetKey(), r.GetSecret(), "")
}

func (a *app) importKeys() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "add the keys of another machine's keys.toml", UsageText: "rtaskctl key import [--json] FILE|-",
		Flags: []cli.Flag{jsonFlag()}, Action: a.keyImport,
	}
}

func (a *app) keyImport(c *cli.Context) error {
	file, err := oneArg(c, "FILE")
	if err != nil {
		return err
	}
	data, err := a.input(c.Context, file)
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.ImportKeys, &rtaskv1.ImportKeysRequest{File: data})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(view.Each(r.GetKeys(), view.KeyOf))
	}
	for _, k := range r.GetKeys() {
		if err := a.print("Key " + printable(k.GetName()) + " (" + printable(k.GetId()) + ") imported\n"); err != nil {
			return err
		}
	}
	return nil
}
