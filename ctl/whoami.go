package ctl

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/sandbox/wording"
)

func (a *app) whoamiCommand() *cli.Command {
	return &cli.Command{
		Name: "whoami", Usage: "show who you are to the engine, what you may do, and until when", UsageText: "rtaskctl whoami [--json]",
		Flags: []cli.Flag{jsonFlag()}, Action: a.whoami,
	}
}

// identity is who the caller is, by the engine's word and one's own certificate.
type identity struct {
	*rtaskv1.WhoAmIResponse
	target target
	// cert, kept and tokenUntil are of a remote client.
	cert       *tls.Certificate
	kept       string
	tokenUntil time.Time
	// ahead is by how much the engine's clock is ahead of this machine's.
	ahead time.Duration
}

func (a *app) whoami(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if _, err := a.connect(c); err != nil {
		return err
	}
	who, err := a.ownIdentity(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(who.json())
	}
	if a.target.remote == nil {
		return a.print(who.local(a.path))
	}
	return a.print(who.text())
}

// ownIdentity asks the engine of a.target who the caller is.
func (a *app) ownIdentity(ctx context.Context) (*identity, error) {
	who := &identity{target: a.target}
	if a.engine == nil {
		if err := a.dial(); err != nil {
			return nil, err
		}
	}
	var err error
	began := time.Now()
	if who.WhoAmIResponse, err = a.engine.Jobs.WhoAmI(ctx, &rtaskv1.WhoAmIRequest{}); err != nil {
		return nil, err
	}
	ended := time.Now()
	if t := who.GetServerTime(); t != nil {
		who.ahead = t.AsTime().Sub(began.Add(ended.Sub(began) / 2))
	}
	endpoint, remote := a.engine.Remote()
	if !remote {
		return who, nil
	}
	if who.cert, err = a.target.remote.Certificate(ctx, endpoint); err != nil {
		return nil, err
	}
	who.kept = a.target.remote.Place().String()
	if t := who.GetTokenExpiresAt(); t != nil {
		who.tokenUntil = t.AsTime().Add(-who.ahead)
	}
	return who, nil
}

// until is when the certificate ends, by this machine's clock.
func (i *identity) until() time.Time {
	if t := i.GetCertificateExpiresAt(); t != nil {
		return t.AsTime().Add(-i.ahead)
	}
	return i.cert.Leaf.NotAfter
}

// name is what people call the identity.
func (i *identity) name() string {
	if s := i.GetProviderSubject(); s != "" {
		return s
	}
	return shortName(i.cert.Leaf)
}

// loggedIn is what a login ends with.
func (i *identity) loggedIn() string {
	now := time.Now()
	roles := make([]string, 0, len(i.GetRoles()))
	for _, r := range i.GetRoles() {
		roles = append(roles, r.GetName())
	}
	if len(roles) == 0 {
		roles = append(roles, "none")
	}
	return fmt.Sprintf("Logged in to %s as %s until %s (in %s); roles: %s\nThe key is %s.\n",
		printable(hostOf(i.target.context.URL)), printable(i.name()), clockTime(i.until(), now), wording.Span(i.until().Sub(now).Round(time.Minute), 1),
		printable(strings.Join(roles, ", ")), i.kept)
}

// roleText is what a role allows.
func roleText(r *rtaskv1.Role) string {
	text := r.GetName() + ": " + strings.Join(r.GetTasks(), ", ")
	if len(r.GetTasks()) == 0 {
		text = r.GetName() + ": no tasks"
	}
	text += "; " + strings.Join(r.GetMethods(), ", ") + ", " + r.GetJobs() + " jobs"
	if r.GetCommands() {
		text += ", commands as " + r.GetRunAs()
	}
	return printable(text)
}

// text is what whoami shows of a remote client.
func (i *identity) text() string {
	now := time.Now()
	c := i.target.context
	where := printable(c.Name)
	if c.Name == "" {
		where = "none"
	}
	where += "  " + printable(c.URL)
	if f := i.target.from; f != "" && f != "the current context" {
		where += "  (" + f + ")"
	}
	who := printable(i.GetIdentity())
	if p := i.GetProvider(); p != "" {
		who += "  (" + printable(p+": "+i.GetProviderSubject()) + ")"
	}
	rows := [][2]string{{"Context", where}, {"Identity", who}}
	for n, r := range i.GetRoles() {
		rows = append(rows, [2]string{"Roles", roleText(r)})
		if n > 0 {
			rows[len(rows)-1][0] = ""
		}
	}
	if len(i.GetRoles()) == 0 {
		rows = append(rows, [2]string{"Roles", "none"})
	}
	rows = append(rows, [2]string{"Cert", fmt.Sprintf("serial %s, until %s (in %s), key %s", shortSerial(i.cert.Leaf), i.until().Local().Format("2006-01-02 15:04"),
		wording.Span(i.until().Sub(now), 2), i.kept)})
	if !i.tokenUntil.IsZero() {
		rows = append(rows, [2]string{"Token", "until " + clockTime(i.tokenUntil, now) + " (renewed by itself)"})
	}
	rows = append(rows, [2]string{"Clock", i.clock()})
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%-8s  %s\n", r[0], r[1])
	}
	return b.String()
}

// clock says how this machine's clock is to the server's.
func (i *identity) clock() string {
	d, word := -i.ahead, "ahead of"
	if d < 0 {
		d, word = -d, "behind"
	}
	if d < time.Minute {
		return fmt.Sprintf("%.1f s %s the server", d.Seconds(), word)
	}
	return wording.Span(d, 2) + " " + word + " the server"
}

// local is what whoami shows of a user of this machine.
func (i *identity) local(socket string) string {
	from := ""
	if i.target.from != "" {
		from = "  (" + i.target.from + ")"
	}
	return fmt.Sprintf("%-8s  %s%s\n%-8s  %s\n%-8s  %s\n%-8s  %s\n", "Socket", printable(socket), from, "User", printable(i.GetUser()),
		"Kind", printable(i.GetKind()), "May", printable(strings.Join(i.GetMethods(), ", ")))
}

// identityJSON is who a caller is as --json prints it.
type identityJSON struct {
	Context         string     `json:"context,omitempty"`
	URL             string     `json:"url,omitempty"`
	From            string     `json:"from,omitempty"`
	Kind            string     `json:"kind"`
	User            string     `json:"user,omitempty"`
	Identity        string     `json:"identity,omitempty"`
	Provider        string     `json:"provider,omitempty"`
	ProviderSubject string     `json:"provider_subject,omitempty"`
	Groups          []string   `json:"groups,omitempty"`
	Roles           []roleJSON `json:"roles"`
	Methods         []string   `json:"methods"`
	Serial          string     `json:"serial,omitempty"`
	ExpiresAt       string     `json:"expires_at,omitempty"`
	TokenExpiresAt  string     `json:"token_expires_at,omitempty"`
	Key             string     `json:"key,omitempty"`
}

type roleJSON struct {
	Name     string   `json:"name"`
	Tasks    []string `json:"tasks"`
	Methods  []string `json:"methods"`
	Jobs     string   `json:"jobs"`
	Commands bool     `json:"commands"`
	RunAs    string   `json:"run_as,omitempty"`
}

func (i *identity) json() identityJSON {
	v := identityJSON{
		Context: i.target.context.Name, URL: i.target.context.URL, From: i.target.from, Kind: i.GetKind(), User: i.GetUser(), Identity: i.GetIdentity(),
		Provider: i.GetProvider(), ProviderSubject: i.GetProviderSubject(), Groups: i.GetGroups(), Methods: view.List(i.GetMethods()),
		Roles: view.Each(i.GetRoles(), func(r *rtaskv1.Role) roleJSON {
			return roleJSON{r.GetName(), view.List(r.GetTasks()), view.List(r.GetMethods()), r.GetJobs(), r.GetCommands(), r.GetRunAs()}
		}),
		TokenExpiresAt: view.Time(i.GetTokenExpiresAt()),
	}
	if i.cert != nil {
		v.Serial, v.ExpiresAt, v.Key = serial(i.cert.Leaf), view.Time(timestamppb.New(i.cert.Leaf.NotAfter)), string(i.target.remote.Place())
	}
	return v
}
