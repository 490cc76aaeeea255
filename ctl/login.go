package ctl

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/ctl/login"
	"github.com/rtask/rtask/daemon/auth/join"
)

func (a *app) loginCommand() *cli.Command {
	return &cli.Command{
		Name: "login", Usage: "log in to the engine of another machine, and save it as a context",
		UsageText: "rtaskctl login [OPTION…] [HOST[:PORT] | CONTEXT]\nrtaskctl login --join TOKEN|- [OPTION…]\nrtaskctl login --cert FILE [--key FILE] [--ca FILE] HOST[:PORT]",
		Description: "You prove who you are by an OpenID provider that the server names, by a join token, or an administrator of the server " +
			"approves a code that this command shows. Without an argument it is a new login to the current context.\n" +
			"The key is kept in ssh-agent, else in a file under a passphrase. The context becomes the current one.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "join", Usage: "use the join `TOKEN` that rtaskctl ca issue printed; - reads it from standard input"},
			&cli.StringFlag{Name: "provider", Usage: "log in with the server's OpenID provider `NAME`; in GitHub Actions with the workflow's own token"},
			boolFlag("log in by a code that you type in any browser, also on another machine", "device"),
			boolFlag("log in with a browser of this machine", "browser"),
			&cli.StringFlag{Name: "as", Usage: "ask the server's administrator to be called `NAME` (default: your user name)"},
			&cli.StringFlag{Name: "name", Usage: "call the context `NAME` (default: the first part of the host's name)"},
			&cli.StringFlag{Name: "key", Usage: "keep the key in `PLACE`: agent, passphrase or plain; with --cert, the file of its key"},
			&cli.StringFlag{Name: "cert", Usage: "use the certificate in `FILE`, from an authority of your own"},
			&cli.StringFlag{Name: "ca", Usage: "believe the server by the authorities in `FILE`"},
			&cli.StringFlag{Name: "ca-fingerprint", Usage: "believe the server if its authority has this `SHA256:…`"},
			boolFlag("forget which authority the server had", "forget"),
			jsonFlag(),
		},
		Action: a.login,
	}
}

// aim is the server that a login is for.
type aim struct {
	context contexts.Context
	// known is whether the context is there already.
	known bool
	join  *join.Token
	token string
}

// loginAim finds out which server a command line means.
func (a *app) loginAim(c *cli.Context, folder contexts.Folder) (aim, error) {
	if c.NArg() > 1 {
		return aim{}, misuse(c, "too many arguments, from %q on", c.Args().Get(1))
	}
	all, current, err := folder.All()
	if err != nil {
		return aim{}, err
	}
	var to aim
	text := c.Args().First()
	if given := c.String("join"); given != "" {
		if to.token, to.join, err = a.joinToken(given); err != nil {
			return aim{}, err
		}
		if text == "" {
			text = to.join.Address
		}
	}
	for _, known := range all {
		if known.Name == text || text == "" && known.Name == current {
			to.context, to.known = known, true
		}
	}
	if !to.known {
		if text == "" {
			return aim{}, misuse(c, "HOST is missing")
		}
		server, err := client.ParseURL(text)
		if err != nil {
			return aim{}, err
		}
		if to.context, to.known = byURL(all, current, server); !to.known || c.IsSet("name") {
			to.context, to.known = contexts.Context{URL: server}, false
		}
	}
	if to.join != nil && to.context.URL != "https://"+to.join.Address {
		return aim{}, fmt.Errorf("this join token is for %s", to.join.Address)
	}
	if to.known {
		return to, nil
	}
	to.context.Name = nameFor(to.context.URL, all)
	if name := c.String("name"); name != "" {
		if err := contexts.CheckName(name); err != nil {
			return aim{}, err
		}
		to.context.Name = name
		for _, known := range all {
			to.known = to.known || known.Name == name && known.URL == to.context.URL
		}
	}
	return to, nil
}

// joinToken reads a join token, from standard input for "-".
func (a *app) joinToken(given string) (string, *join.Token, error) {
	if given == "-" {
		const most = 1 << 10
		text, err := io.ReadAll(io.LimitReader(a.stdin, most))
		if err != nil {
			return "", nil, fmt.Errorf("cannot read the join token: %w", err)
		}
		given = strings.TrimSpace(string(text))
	}
	t, err := join.Parse(given)
	if err != nil {
		return "", nil, err
	}
	return given, &t, nil
}

// nameFor is a new name for the context of a server.
func nameFor(server string, all []contexts.Context) string {
	host := hostOf(server)
	first, _, _ := strings.Cut(host, ".")
	if _, err := netip.ParseAddr(host); err == nil {
		first = strings.NewReplacer(":", "-", "%", "-").Replace(host)
	}
	address := strings.NewReplacer(":", "-", "[", "", "]", "", "%", "-").Replace(addressOf(server))
	for _, name := range []string{first, host, address} {
		taken := slices.ContainsFunc(all, func(c contexts.Context) bool { return c.Name == name })
		if !taken && contexts.CheckName(name) == nil {
			return name
		}
	}
	return address
}

func (a *app) login(c *cli.Context) error {
	folder, err := a.needFolder()
	if err != nil {
		return err
	}
	if c.Bool("device") && c.Bool("browser") {
		return misuse(c, "--device and --browser exclude each other")
	}
	to, err := a.loginAim(c, folder)
	if err != nil {
		return err
	}
	if err := folder.Check(to.context); err != nil { // before a join token is used up
		return err
	}
	a.target = target{context: to.context}
	t := trust{fingerprint: c.String("ca-fingerprint"), file: c.String("ca")}
	if to.join != nil {
		t.pin = &to.join.Pin
	}
	if to.known && !c.Bool("forget") && t.fingerprint == "" && t.file == "" {
		server, err := folder.Credentials(to.context, keystore.Store{}, nil).Server()
		if err != nil {
			return err
		}
		if t.roots = server.Roots; len(t.roots) > 0 {
			t.pin = nil
		}
	}
	if cert := c.String("cert"); cert != "" || to.context.CertFile != "" && !c.IsSet("join") && !c.IsSet("provider") {
		return a.loginFiles(c, folder, to, t)
	}
	endpoint, said, roots, err := a.believe(c.Context, to.context.URL, t)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	to.context.CertFile, to.context.KeyFile, to.context.CAFile = "", "", ""
	content := contexts.Content{CA: pemOf(roots)}
	if name := c.String("provider"); a.env.get(login.GitHubURL) != "" && to.join == nil && (name != "" || to.context.Key == keystore.Memory) {
		if name != "" {
			to.context.Provider = name
		}
		to.context.Key = keystore.Memory
		cert, err := a.enrolWorkflow(c.Context, endpoint, said, to.context.Provider)
		if err != nil {
			return err
		}
		return a.saveLogin(c, folder, to, content, cert, func(string) error { return nil })
	}
	place := keystore.Place(c.String("key"))
	if to.known && place == "" && to.context.Key == keystore.Plain {
		place = keystore.Plain // it was asked for once
	}
	if !slices.Contains([]keystore.Place{"", keystore.Agent, keystore.Passphrase, keystore.Plain}, place) {
		return misuse(c, "--key: %q is none of agent, passphrase, plain; the file of a key comes with --cert", place)
	}
	p, err := a.chooseProof(c, to, said)
	if err != nil {
		return err
	}
	key, err := a.keys().Make(c.Context, place)
	if err != nil {
		return keyHint(err)
	}
	csr, err := contexts.Request(key.Signer)
	if err != nil {
		return err
	}
	got, err := p(c.Context, endpoint, csr, key.Public())
	if err != nil {
		return err
	}
	cert, err := contexts.WithKey(got.Certificate, key.Signer)
	if err != nil {
		return err
	}
	content.Certificate = got.Certificate
	if len(roots) > 0 && len(got.Authorities) > 0 && t.file == "" {
		content.CA = strings.Join(got.Authorities, "\n")
	}
	old, _ := folder.Certificate(to.context.Name) // of an earlier login, whose key in the agent is of no use any more
	to.context.Key = key.Where
	err = a.saveLogin(c, folder, to, content, cert, func(dir string) error { return key.Keep(dir, to.context.Name, contexts.KeyUntil(cert.Leaf)) })
	if err == nil && old != nil {
		a.keys().Forget(old.Leaf.PublicKey)
	}
	return err
}

// keyHint says what to do where no key can be kept.
func keyHint(err error) error {
	if errors.Is(err, keystore.ErrNobody) || errors.Is(err, keystore.ErrNoAgent) {
		return &hintError{fmt.Errorf("cannot keep the key: %w, and no ssh-agent that takes it", err), "start ssh-agent, or add --key plain for a key without protection"}
	}
	return fmt.Errorf("cannot keep the key: %w", err)
}

// pemOf writes certificates.
func pemOf(all []*x509.Certificate) string {
	var b strings.Builder
	for _, c := range all {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// loginFiles logs in with a certificate of somebody's own authority.
func (a *app) loginFiles(c *cli.Context, folder contexts.Folder, to aim, t trust) error {
	for flag, file := range map[string]*string{"cert": &to.context.CertFile, "key": &to.context.KeyFile, "ca": &to.context.CAFile} {
		if !c.IsSet(flag) {
			continue
		}
		path, err := filepath.Abs(c.String(flag))
		if err != nil {
			return err
		}
		*file = path
	}
	to.context.Key, to.context.Provider = "", ""
	if to.context.CAFile != "" {
		t.file = to.context.CAFile
	}
	endpoint, _, roots, err := a.believe(c.Context, to.context.URL, t)
	if err != nil {
		return err
	}
	defer endpoint.Close()
	content := contexts.Content{}
	if to.context.CAFile == "" {
		content.CA = pemOf(roots)
	}
	// It is tried before it is saved.
	own := contexts.Files(to.context, a.keys())
	cert, err := own.Certificate(c.Context, endpoint)
	if err != nil {
		return err
	}
	a.target.context = to.context
	if time.Now().After(cert.Leaf.NotAfter) {
		return fmt.Errorf("the certificate in %s expired on %s", to.context.CertFile, cert.Leaf.NotAfter.Local().Format(time.DateTime))
	}
	if _, err := endpoint.Token(c.Context, cert); err != nil {
		return err
	}
	return a.saveLogin(c, folder, to, content, nil, func(string) error { return nil })
}

// saveLogin saves the context of a login and says who one is there. Cert, with its key, is nil for somebody's own files.
func (a *app) saveLogin(c *cli.Context, folder contexts.Folder, to aim, content contexts.Content, cert *tls.Certificate, keep func(string) error) error {
	if err := folder.Save(c.Context, to.context, content, keep, true); err != nil {
		return fmt.Errorf("cannot save the context %s: %w", to.context.Name, err)
	}
	a.engine = nil
	a.target = target{remote: a.credentials(folder, to.context), context: to.context}
	if cert != nil {
		a.target.remote.Have(cert, to.context.Key)
	}
	who, err := a.ownIdentity(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(who.json())
	}
	if err := a.print(who.loggedIn()); err != nil {
		return err
	}
	if exists(a.localTarget("").socket) {
		a.say("hint: commands go to %s now; rtaskctl context use local brings them back to this machine", printable(hostOf(to.context.URL)))
	}
	return nil
}

// proof gets a certificate for a request.
type proof func(ctx context.Context, e *client.Endpoint, csr string, key crypto.PublicKey) (client.Enrolled, error)

// chooseProof decides how somebody proves who they are.
func (a *app) chooseProof(c *cli.Context, to aim, said client.Authority) (proof, error) {
	if to.join != nil {
		return func(ctx context.Context, e *client.Endpoint, csr string, _ crypto.PublicKey) (client.Enrolled, error) {
			return e.Enroll(ctx, csr, client.Proof{JoinToken: to.token})
		}, nil
	}
	person := c.Bool("device") || c.Bool("browser") || a.canAsk()
	provider, err := chooseProvider(c, to, said)
	if err != nil {
		return nil, err
	}
	if !person {
		return nil, &hintError{
			errors.New("a login needs a person, and there is no terminal"),
			"use --join TOKEN, in GitHub Actions --provider NAME, or --device if somebody reads this output",
		}
	}
	if provider == nil {
		name := c.String("as")
		if name == "" {
			name = a.env.get("USER")
		}
		if name == "" {
			return nil, misuse(c, "--as NAME is missing: whom shall the administrator approve?")
		}
		return func(ctx context.Context, e *client.Endpoint, csr string, key crypto.PublicKey) (client.Enrolled, error) {
			spki, err := x509.MarshalPKIXPublicKey(key)
			if err != nil {
				return client.Enrolled{}, fmt.Errorf("cannot show the key: %w", err)
			}
			return login.Approval(ctx, e, csr, name, func(code string) {
				a.say("Ask an administrator of %s to run:  rtaskctl device approve %s", printable(e.Host()), oneLine(code))
				a.say("That must show the key of this login:  %s", client.KeyFingerprint(spki))
			})
		}, nil
	}
	return func(ctx context.Context, e *client.Endpoint, csr string, key crypto.PublicKey) (client.Enrolled, error) {
		token, err := a.idToken(ctx, c, *provider, key)
		if err != nil {
			return client.Enrolled{}, err
		}
		return login.Enroll(ctx, e, csr, client.Proof{Provider: provider.Name, IDToken: token})
	}, nil
}

// chooseProvider returns the provider to log in with, nil if the server has none for people.
func chooseProvider(c *cli.Context, to aim, said client.Authority) (*client.Provider, error) {
	name := c.String("provider")
	if name == "" {
		name = to.context.Provider
	}
	var names []string
	var people []*client.Provider
	for i, p := range said.Providers {
		if p.Name == name {
			return &said.Providers[i], nil
		}
		names = append(names, p.Name)
		if len(p.Login) > 0 {
			people = append(people, &said.Providers[i])
		}
	}
	switch {
	case c.IsSet("provider"):
		if len(names) == 0 {
			return nil, fmt.Errorf("%s has no provider", hostOf(to.context.URL))
		}
		return nil, fmt.Errorf("%s has no provider %q: there are %s", hostOf(to.context.URL), name, strings.Join(names, ", "))
	case len(people) == 0:
		return nil, nil
	case len(people) > 1:
		names = nil
		for _, p := range people {
			names = append(names, p.Name)
		}
		return nil, fmt.Errorf("%s has several providers: choose one with --provider %s", hostOf(to.context.URL), strings.Join(names, " or --provider "))
	}
	return people[0], nil
}

// idToken gets an ID token from a person.
func (a *app) idToken(ctx context.Context, c *cli.Context, p client.Provider, key crypto.PublicKey) (string, error) {
	browser := slices.Contains(p.Login, "browser")
	device := slices.Contains(p.Login, "device")
	display := a.env.get("DISPLAY") != "" || a.env.get("WAYLAND_DISPLAY") != ""
	switch {
	case c.Bool("browser"):
		device = false
	case c.Bool("device"):
		browser = false
	case device && (!display || a.env.get("SSH_CONNECTION") != ""):
		browser = false
	}
	switch {
	case browser:
		nonce, err := login.Nonce(key)
		if err != nil {
			return "", err
		}
		return login.Browser(ctx, p, nonce, func(url string) {
			a.say("Open %s", oneLine(url))
			a.say("Waiting for the browser (Ctrl-C ends) …")
		})
	case device:
		return login.Device(ctx, p, func(url, code string) {
			a.say("Open %s", oneLine(url))
			a.say("Code %s, waiting (Ctrl-C ends) …", oneLine(code))
		})
	}
	return "", fmt.Errorf("provider %s has no such login for people: it has %s", p.Name, strings.Join(append(p.Login, "none"), ", "))
}

// enrolWorkflow gets a certificate for a key in memory, by the ID token of the workflow of GitHub Actions that this process is part of,
// from a server by what it has said of its providers.
func (a *app) enrolWorkflow(ctx context.Context, e *client.Endpoint, said client.Authority, provider string) (*tls.Certificate, error) {
	i := slices.IndexFunc(said.Providers, func(p client.Provider) bool { return p.Name == provider })
	if i < 0 {
		return nil, fmt.Errorf("%s has no provider %q", e.Host(), provider)
	}
	// A token for whatever the server names would be good elsewhere, too: at a cloud, or at another engine.
	audience := cmp.Or(said.Providers[i].Audience, said.URL)
	if audience != e.URL() {
		return nil, &hintError{
			fmt.Errorf("%s wants an ID token for %q, and this login is for %s", e.Host(), audience, e.URL()),
			"log in at the URL that the server has, or have the audience of its provider " + provider + " be " + e.URL(),
		}
	}
	token, err := login.GitHub(ctx, a.env.get, audience)
	if err != nil {
		return nil, err
	}
	key, err := keystore.Store{}.Make(ctx, keystore.Memory)
	if err != nil {
		return nil, err
	}
	csr, err := contexts.Request(key.Signer)
	if err != nil {
		return nil, err
	}
	got, err := login.Enroll(ctx, e, csr, client.Proof{Provider: provider, IDToken: token})
	if err != nil {
		return nil, err
	}
	return contexts.WithKey(got.Certificate, key.Signer)
}
