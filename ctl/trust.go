package ctl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/auth/join"
)

// trust is for which reason a server may be believed at a login.
type trust struct {
	// roots are those that are known for it; nil: none are.
	roots []*x509.Certificate
	// pin is that of a join token.
	pin *[join.PinLen]byte
	// fingerprint was given on the command line.
	fingerprint string
	// file has authorities.
	file string
}

// believe returns an endpoint of a server that has shown itself, with what it says of itself, and the authorities to keep for it, nil:
// the system's. A server that nobody knows is believed by the system's authorities, by a join token's pin, by a fingerprint, or by the
// word of a person at the terminal, and never otherwise.
func (a *app) believe(ctx context.Context, server string, t trust) (*client.Endpoint, client.Authority, []*x509.Certificate, error) {
	roots := t.roots
	if t.file != "" {
		text, err := os.ReadFile(t.file)
		if err == nil {
			roots, err = client.ParseCertificates(string(text))
		}
		if err == nil && len(roots) == 0 {
			err = fmt.Errorf("%s has no certificate in PEM", t.file)
		}
		if err != nil {
			return nil, client.Authority{}, nil, err
		}
	}
	compare := t.pin != nil || t.fingerprint != ""
	if len(roots) == 0 && !compare {
		e, said, err := meet(ctx, server, nil)
		if r, ok := errors.AsType[*client.Refused](err); !ok || r.Cause != client.AuthorityChanged {
			return e, said, nil, err
		}
	}
	if len(roots) == 0 || compare {
		signer, err := a.introduce(ctx, server, t)
		if err != nil {
			return nil, client.Authority{}, nil, err
		}
		roots = []*x509.Certificate{signer}
	}
	e, said, err := meet(ctx, server, roots)
	if err != nil {
		return nil, client.Authority{}, nil, err
	}
	if t.file != "" {
		return e, said, roots, nil
	}
	// The server is proven, so it may name its other authorities.
	all, err := client.ParseCertificates(said.Certificates...)
	if err != nil || len(all) == 0 {
		all = roots
	}
	return e, said, all, nil
}

// meet asks a server who it is, and believes these authorities only; nil: the system's.
func meet(ctx context.Context, server string, roots []*x509.Certificate) (*client.Endpoint, client.Authority, error) {
	e, err := client.NewEndpoint(client.Server{URL: server, Roots: roots})
	if err != nil {
		return nil, client.Authority{}, err
	}
	said, err := e.Authority(ctx)
	return e, said, err
}

// introduce returns the authority of a server that nobody knows, once there is a reason to believe it.
func (a *app) introduce(ctx context.Context, server string, t trust) (*x509.Certificate, error) {
	e, err := client.NewEndpoint(client.Server{URL: server})
	if err != nil {
		return nil, err
	}
	signer, err := e.Meet(ctx)
	if err != nil {
		return nil, err
	}
	came := client.Fingerprint(signer)
	switch {
	case t.pin != nil:
		if join.PinOf(signer) != *t.pin {
			return nil, &hintError{
				fmt.Errorf("this join token is for another authority than that of %s, which is %s", e.Host(), came),
				"something may be between you and the server; nothing was sent to it",
			}
		}
		return signer, nil
	case t.fingerprint != "":
		if strings.TrimRight(strings.TrimPrefix(t.fingerprint, "SHA256:"), "=") != strings.TrimPrefix(came, "SHA256:") {
			return nil, fmt.Errorf("the authority of %s is %s, and --ca-fingerprint says %s", e.Host(), came, t.fingerprint)
		}
		return signer, nil
	case !a.canAsk():
		return nil, &hintError{
			fmt.Errorf("the authority of %s is new here: %s", e.Host(), came),
			"compare that with what its administrator says, then add --ca-fingerprint " + came,
		}
	}
	yes, err := a.confirm(ctx, fmt.Sprintf("Authority %s, %s, is new here. Trust it?", oneLine(signer.Subject.CommonName), came))
	if err == nil && !yes {
		err = fmt.Errorf("the authority of %s is not trusted", e.Host())
	}
	return signer, err
}
