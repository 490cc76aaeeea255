package ctl

import (
	"cmp"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) keyCommand() *cli.Command {
	return &cli.Command{
		Name: "key", Usage: "add, list, rotate, revoke and import API keys", UsageText: "rtaskctl key add|list|rotate|revoke|import",
		Subcommands: []*cli.Command{
			a.addKey("add", "rtaskctl key add [--expires TIME] [--json] NAME"),
			{
				Name: "list", Usage: "list the keys", UsageText: "rtaskctl key list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.keyList,
			},
			a.rotateKey(),
			a.importKeys(),
			{
				Name: "revoke", Usage: "revoke a key now", UsageText: "rtaskctl key revoke [--json] NAME|ID",
				Flags: []cli.Flag{jsonFlag()}, Action: a.keyRevoke,
			},
		},
	}
}

func (a *app) addKeyCommand() *cli.Command {
	return a.addKey("add-key", "rtaskctl add-key [--expires TIME] [--json] NAME")
}

func (a *app) addKey(name, usage string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: "add an API key and print it (only this once)", UsageText: usage,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "expires", Usage: "let the key expire after `TIME`, such as 90d, 12h or 1y (default: never)"},
			jsonFlag(),
		},
		Action: a.keyAdd,
	}
}

func (a *app) keyAdd(c *cli.Context) error {
	name, err := oneArg(c, "NAME")
	if err != nil {
		return err
	}
	request := &rtaskv1.AddKeyRequest{Name: name}
	if c.IsSet("expires") {
		d, err := parseSpan(c.String("expires"))
		switch {
		case err != nil:
			return misuse(c, "--expires: %v", err)
		case d <= 0:
			return misuse(c, "--expires: the time must be more than 0")
		}
		request.ExpiresIn = durationpb.New(d)
	}
	r, err := call(a, c, jobs.AddKey, request)
	if err != nil {
		return err
	}
	return a.printSecret(c, r.GetKey(), r.GetSecret(), " Name it in api_keys of the tasks that it may start.")
}

// printSecret prints a key that was made, this once, and on a terminal what to do with it.
func (a *app) printSecret(c *cli.Context, key *rtaskv1.Key, secret, todo string) error {
	if c.Bool("json") {
		value := view.KeyOf(key)
		value.Secret = secret
		return a.printJSON(value)
	}
	if isTerminal(a.stderr) {
		a.say("This is the only time that the key is shown.%s", todo)
	}
	if end := key.GetExpiresAt(); end != nil {
		a.say("The key %s expires on %s.", printable(key.GetName()), moment(end))
	}
	return a.print(printable(secret) + "\n")
}

func (a *app) keyList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := call(a, c, jobs.ListKeys, &rtaskv1.ListKeysRequest{})
	if err != nil {
		return err
	}
	when := moment
	if a.width() > 0 { // of a terminal, where all of it is rarely of interest
		when = func(t *timestamppb.Timestamp) string { return near(t, time.Now()) }
	}
	return listing[*rtaskv1.Key, view.Key]{
		view: view.KeyOf, none: "There are no API keys; rtaskctl key add NAME makes one.",
		header: []column{{name: "NAME", least: 16}, {name: "ID"}, {name: "CREATED"}, {name: "EXPIRES"}, {name: "LAST USED"}},
		row: func(k *rtaskv1.Key) []string {
			never := func(text string) string { return cmp.Or(text, "never") }
			return []string{k.GetName(), k.GetId(), when(k.GetCreatedAt()), never(when(k.GetExpiresAt())), never(agoIn(k.GetLastUsedAt(), 1))}
		},
	}.print(a, c, r.GetKeys())
}

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

func (a *app) keyRevoke(c *cli.Context) error {
	ref, err := oneArg(c, "NAME|ID")
	if err != nil {
		return err
	}
	r, err := call(a, c, jobs.RevokeKey, &rtaskv1.RevokeKeyRequest{Key: ref})
	if err != nil {
		return err
	}
	k := r.GetKey()
	return a.result(c, view.KeyOf(k), "Key "+printable(k.GetName())+" ("+printable(k.GetId())+") revoked\n")
}
