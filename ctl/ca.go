package ctl

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// authority names the methods that callAuthority takes, such as authority.Show.
type authority = rtaskv1connect.AuthorityServiceClient

// callAuthority makes one call to the authority of the engine that the command line and the environment mean.
func callAuthority[Q, R any](a *app, c *cli.Context, m func(authority, context.Context, *Q) (*R, error), request *Q) (*R, error) {
	if _, err := a.socket(c, "certificates and providers are looked after on the engine's own machine"); err != nil {
		return nil, err
	}
	engine, err := a.connect(c)
	if err != nil {
		return nil, err
	}
	r, err := m(engine.Authority, c.Context, request)
	if connect.CodeOf(err) == connect.CodeFailedPrecondition {
		err = &hintError{err, a.missingHint(c.Context, engine)}
	}
	return r, err
}

// missingHint says what to do where the engine has no authority, or not its key.
func (a *app) missingHint(ctx context.Context, engine *client.Client) string {
	now, err := engine.Authority.Show(ctx, &rtaskv1.ShowRequest{})
	lost := " and restart the engine, or run rtaskctl ca rotate --distrust-old: everybody logs in again"
	switch {
	case err != nil || now.GetUnlocked():
		return "rtaskctl doctor shows what is missing"
	case !now.GetExists():
		return "rtaskctl ca init makes an authority; rtaskctl doctor shows what is missing"
	case now.GetSealed():
		return "put " + filepath.Join(a.credstore, sealedAuthority) + " back" + lost
	}
	return "put ca.key back into " + printable(now.GetStateFolder()) + lost
}

func (a *app) caCommand() *cli.Command {
	kinds := []cli.Flag{
		boolFlag("for a machine, which renews its certificate by itself", "machine"),
		boolFlag("for a server of this name, whose certificate clients believe, too", "server"),
		roleFlag(),
	}
	return &cli.Command{
		Name: "ca", Usage: "make, list and revoke certificates for clients on other machines", UsageText: "rtaskctl ca init|issue|list|renew|revoke|rotate|export",
		Subcommands: []*cli.Command{
			{
				Name: "init", Usage: "make the authority, and the keys of remote access", UsageText: "rtaskctl ca init [--name NAME] [--tpm] [--json]",
				Description: "Keys are encrypted with this machine's key by systemd-creds. Without systemd rtaskd keeps them in its state folder.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "name", Usage: "call the authority `NAME`, such as example.org (default: the machine's name)"},
					boolFlag("encrypt the keys with the machine's TPM2 chip, too", "tpm"), jsonFlag(),
				},
				Action: a.caInit,
			},
			{
				Name: "issue", Usage: "let somebody log in once, or make a certificate",
				UsageText: "rtaskctl ca issue [--machine | --server] [--role ROLE…] [--csr FILE|- | --out FOLDER] [--json] NAME",
				Description: "Prints a join token: whoever uses it first, within an hour, gets a certificate as NAME. With --csr or --out it makes the " +
					"certificate now, for a machine that cannot call.",
				Flags: append(kinds[:len(kinds):len(kinds)],
					&cli.StringFlag{Name: "csr", Usage: "make a certificate for the signing request in `FILE`, and print it"},
					&cli.StringFlag{Name: "out", Usage: "make a key and a certificate, and write them to `FOLDER`"}, jsonFlag()),
				Action: a.caIssue,
			},
			{
				Name: "list", Usage: "list the certificates", UsageText: "rtaskctl ca list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.caList,
			},
			{
				Name: "renew", Usage: "renew your own certificate now, or that of a machine that cannot call", UsageText: "rtaskctl ca renew [--json] [NAME|SERIAL]",
				Description: "With a name it is an administrator's: makes another certificate for the key of the last one, and prints it.\n" +
					"Without one it renews that of the context, of a machine; rtaskctl does so by itself when it is time.",
				Flags: []cli.Flag{jsonFlag()}, Action: a.caRenew,
			},
			{
				Name: "revoke", Usage: "revoke the certificates and join tokens of NAME, or one certificate", UsageText: "rtaskctl ca revoke [--json] NAME|SERIAL",
				Description: "What their clients wait for or follow ends before this command returns, and so do their jobs that wait in a queue.",
				Flags:       []cli.Flag{jsonFlag()}, Action: a.caRevoke,
			},
			{
				Name: "rotate", Usage: "give the authority a new key", UsageText: "rtaskctl ca rotate [--distrust-old | --gateway] [--tpm] [--json]",
				Description: "What the old key has signed stays good until the last of it has ended. With --gateway it is the gateway that gets a new key.",
				Flags: []cli.Flag{
					boolFlag("revoke all that the old key has signed, because others may know it", "distrust-old"),
					boolFlag("give the gateway a new key instead: it is lost, or others may know it", "gateway"),
					boolFlag("encrypt the key with the machine's TPM2 chip, too", "tpm"), jsonFlag(),
				},
				Action: a.caRotate,
			},
			{
				Name: "export", Usage: "print the authority's certificates, for remote.authorities of other machines", UsageText: "rtaskctl ca export [--crl]",
				Flags: []cli.Flag{boolFlag("print its lists of revoked certificates, for crl_files", "crl")}, Action: a.caExport,
			},
		},
	}
}

// roleFlag gives an identity roles beside those that the configuration gives it.
func roleFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "role", Usage: "give it the `ROLE` of the configuration, beside those whose subjects name it; may come several times"}
}

// identityOf is the identity that the flags of a command describe.
func identityOf(c *cli.Context, name string) (*rtaskv1.Identity, error) {
	i := &rtaskv1.Identity{Name: name, Kind: rtaskv1.IdentityKind_IDENTITY_KIND_USER, Roles: c.StringSlice("role")}
	switch {
	case c.Bool("machine") && c.Bool("server"):
		return nil, misuse(c, "--machine and --server exclude each other")
	case c.Bool("machine"):
		i.Kind = rtaskv1.IdentityKind_IDENTITY_KIND_MACHINE
	case c.Bool("server"):
		i.Kind = rtaskv1.IdentityKind_IDENTITY_KIND_HOST
	}
	return i, nil
}

// cutID returns the kind and the name of a SPIFFE ID, such as user and admin1 of spiffe://example.org/user/admin1.
func cutID(id string) (kind, name string) {
	_, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	kind, name, _ = strings.Cut(path, "/")
	return kind, name
}

func (a *app) caExport(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Export, &rtaskv1.ExportRequest{})
	if err != nil {
		return err
	}
	if !c.Bool("crl") {
		return a.print(lines(string(r.GetCertificates())) + "\n")
	}
	if len(r.GetRevocationLists()) == 0 {
		return errors.New("the engine does not have the authority's key, so there is no list of revoked certificates")
	}
	return a.print(lines(string(r.GetRevocationLists())) + "\n")
}
