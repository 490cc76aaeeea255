package ctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/sandbox/durable"
)

func (a *app) caIssue(c *cli.Context) error {
	name, err := oneArg(c, "NAME")
	if err != nil {
		return err
	}
	identity, err := identityOf(c, name)
	if err != nil {
		return err
	}
	switch {
	case c.IsSet("csr") && c.IsSet("out"):
		return misuse(c, "--csr and --out exclude each other")
	case c.IsSet("csr"):
		csr, err := a.input(c.Context, c.String("csr"))
		if err != nil {
			return err
		}
		r, err := callAuthority(a, c, authority.Sign, &rtaskv1.SignRequest{Identity: identity, Csr: csr})
		if err != nil {
			return err
		}
		return a.printCertificate(c, r)
	case c.IsSet("out"):
		return a.caIssueTo(c, identity)
	}
	r, err := callAuthority(a, c, authority.Issue, &rtaskv1.IssueRequest{Identity: identity})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(struct {
			JoinToken string `json:"join_token"`
			Identity  string `json:"identity"`
			Address   string `json:"address"`
			ExpiresAt string `json:"expires_at"`
		}{r.GetJoinToken(), r.GetUri(), r.GetAddress(), view.Time(r.GetExpiresAt())})
	}
	a.say("For one login within 1 h:  rtaskctl login --join rtj1_…")
	return a.print(printable(r.GetJoinToken()) + "\n")
}

// caIssueTo makes a key, has it certified, and writes all that a client needs to a folder.
func (a *app) caIssueTo(c *cli.Context, identity *rtaskv1.Identity) error {
	folder := c.String("out")
	// Made before the certificate is, so that nothing is issued that cannot be written.
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder for the key: %w", err)
	}
	key, csr, err := newKey()
	var r *rtaskv1.CertificateResponse
	if err == nil {
		r, err = callAuthority(a, c, authority.Sign, &rtaskv1.SignRequest{Identity: identity, Csr: csr})
	}
	if err != nil {
		return errors.Join(err, os.Remove(folder))
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{"key.pem", key}, {"cert.pem", r.GetCertificate()}, {"ca.pem", r.GetAuthorities()}} {
		if err := durable.Create(filepath.Join(folder, f.name), f.content, 0o600); err != nil {
			return err
		}
	}
	return a.result(c, certificateOf(r), fmt.Sprintf("%s until %s: %s/key.pem, cert.pem, ca.pem\n", printable(r.GetUri()), moment(r.GetExpiresAt()), printable(strings.TrimRight(folder, "/"))))
}

// certificateJSON is a new certificate as --json prints it.
type certificateJSON struct {
	Identity    string `json:"identity"`
	Serial      string `json:"serial"`
	ExpiresAt   string `json:"expires_at"`
	Certificate string `json:"certificate"`
	Authorities string `json:"authorities"`
}

func certificateOf(r *rtaskv1.CertificateResponse) certificateJSON {
	return certificateJSON{r.GetUri(), r.GetSerial(), view.Time(r.GetExpiresAt()), string(r.GetCertificate()), string(r.GetAuthorities())}
}

// printCertificate prints a certificate that was made, in PEM.
func (a *app) printCertificate(c *cli.Context, r *rtaskv1.CertificateResponse) error {
	if c.Bool("json") {
		return a.printJSON(certificateOf(r))
	}
	a.say("%s, serial %s, until %s", printable(r.GetUri()), printable(r.GetSerial()), moment(r.GetExpiresAt()))
	return a.print(lines(string(r.GetCertificate())) + "\n")
}

func (a *app) caRenew(c *cli.Context) error {
	if where, err := a.where(c); err != nil {
		return err
	} else if where.remote != nil && c.NArg() == 0 {
		return a.renewOwn(c, where)
	}
	ref, err := oneArg(c, "NAME|SERIAL")
	if err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Renew, &rtaskv1.RenewRequest{Certificate: ref})
	if err != nil {
		return err
	}
	return a.printCertificate(c, r)
}

// renewOwn renews the certificate of the context that is meant.
func (a *app) renewOwn(c *cli.Context, where target) error {
	a.target = where // errors are about it
	cert, err := where.remote.Renew(c.Context)
	if err != nil {
		return err
	}
	until := timestamppb.New(cert.Leaf.NotAfter)
	return a.result(c, struct {
		Name      string `json:"name"`
		Serial    string `json:"serial"`
		ExpiresAt string `json:"expires_at"`
	}{where.context.Name, serial(cert.Leaf), view.Time(until)}, fmt.Sprintf("Renewed the certificate of %s for %s, serial %s, until %s\n", printable(shortName(cert.Leaf)), printable(hostOf(where.context.URL)), shortSerial(cert.Leaf), moment(until)))
}
