package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
)

// errEnded is returned for an expired certificate. The server does not have to revoke it.
var errEnded = errors.New("it has expired")

// revokeTimeout is how long the server may take to revoke a certificate before a logout goes on without it.
const revokeTimeout = 30 * time.Second

func (a *app) logoutCommand() *cli.Command {
	return &cli.Command{
		Name: "logout", Usage: "revoke your certificate at the server, then delete it and its key", UsageText: "rtaskctl logout [--json] [CONTEXT]",
		Description: "The context stays, for the next login. The exit status is 1 if the server did not revoke the certificate.",
		Flags:       []cli.Flag{jsonFlag()}, Action: a.logout,
	}
}

// logoutJSON is what a logout did as --json prints it.
type logoutJSON struct {
	Context string `json:"context"`
	Serial  string `json:"serial"`
	Revoked bool   `json:"revoked"`
	// KeyRemoved is where the key was: "agent", "passphrase" or "plain".
	KeyRemoved string `json:"key_removed,omitempty"`
}

func (a *app) logout(c *cli.Context) error {
	if c.NArg() > 1 {
		return misuse(c, "too many arguments, from %q on", c.Args().Get(1))
	}
	var to target
	var err error
	if name := c.Args().First(); name != "" {
		to, err = a.contextTarget(name, "")
	} else {
		to, err = a.where(c)
	}
	if err != nil {
		return err
	}
	if to.remote == nil || to.context.Name == "" {
		return misuse(c, "CONTEXT is missing")
	}
	a.target = to
	switch {
	case to.context.CertFile != "":
		return &hintError{fmt.Errorf("the certificate of %s is in your own file %s", to.context.Name, to.context.CertFile), "its own authority revokes it; rtaskctl context remove " + to.context.Name + " forgets the context"}
	case to.context.Key == keystore.Memory:
		return &hintError{fmt.Errorf("context %s has no certificate: each process gets its own", to.context.Name), "rtaskctl context remove " + to.context.Name}
	}
	folder, err := a.needFolder()
	if err != nil {
		return err
	}
	var revoked error
	cert, where, err := folder.Logout(c.Context, to.context.Name, a.keys(), func() { revoked = revokeOwn(c.Context, to.remote) })
	if err != nil {
		return err
	}
	value := logoutJSON{to.context.Name, serial(cert.Leaf), revoked == nil, string(where)}
	err = a.result(c, value, logoutText(shortSerial(cert.Leaf), to.context, revoked, where))
	if err != nil || revoked == nil || errors.Is(revoked, errEnded) {
		return err
	}
	if errors.As(revoked, new(*client.Refused)) { // it is of no use there any more
		a.report(revoked)
		return exitStatus(exitError)
	}
	return &hintError{revoked, "an administrator of " + hostOf(to.context.URL) + " can: rtaskctl ca revoke " + shortName(cert.Leaf)}
}

// logoutText says which of both worked.
func logoutText(serial string, c contexts.Context, revoked error, where keystore.Place) string {
	text := "Certificate " + serial
	switch {
	case errors.Is(revoked, errEnded):
		text += " has expired"
	case revoked != nil:
		text += " not revoked at " + hostOf(c.URL)
	default:
		text += " revoked at " + hostOf(c.URL)
	}
	switch where {
	case keystore.Agent:
		text += "; key removed from ssh-agent"
	case keystore.Passphrase, keystore.Plain:
		text += "; key deleted"
	default:
		text += "; there was no key"
	}
	return printable(text+"; context "+c.Name+" kept.") + "\n"
}

// revokeOwn asks the server to revoke the certificate.
func revokeOwn(ctx context.Context, own *contexts.Credentials) error {
	server, err := own.Server()
	if err != nil {
		return err
	}
	endpoint, err := client.NewEndpoint(server)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	cert, err := own.Kept(ctx)
	if err != nil {
		return err
	}
	if time.Now().After(cert.Leaf.NotAfter) {
		return errEnded
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout) // not of the person who types a passphrase
	defer cancel()
	return endpoint.Revoke(ctx, cert)
}
