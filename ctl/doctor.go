package ctl

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check what works on this machine and what is missing", UsageText: "rtaskctl doctor [--json]",
		Description: "The exit status is 1 if the configuration has errors, or a socket could not be opened.",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      a.doctor,
	}
}

func (a *app) doctor(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := call(a, c, jobs.Info, &rtaskv1.InfoRequest{})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = a.printJSON(infoToJSON(r))
	} else {
		err = a.printInfo(r)
	}
	if err == nil && (hasErrors(r.GetDiagnostics()) || slices.ContainsFunc(r.GetSockets(), failed)) {
		return exitStatus(exitError)
	}
	return err
}

func (a *app) printInfo(i *rtaskv1.InfoResponse) error {
	started := ""
	if t := i.GetStartedAt(); t != nil {
		started = moment(t) + "; " + ago(t)
	}
	jobs := fmt.Sprintf("%d running, %d queued", i.GetRunning(), i.GetQueued())
	if i.GetDraining() {
		jobs += "; " + a.paint(yellow, "draining: no new ones are accepted")
	}
	err := a.fields([][2]string{
		{"Version", printable(i.GetVersion())},
		{"Manager", printable(i.GetManager())},
		{"Socket", printable(a.path)},
		{"Host", printable(a.target.context.URL)},
		{"Started", started},
		{"Jobs", jobs},
		{"Remote", remoteText(i.GetRemoteAccess())},
	})
	if err != nil {
		return err
	}
	if err := a.printSockets(i.GetSockets()); err != nil {
		return err
	}
	var b strings.Builder
	if all := i.GetRemoteAccess().GetProblems(); len(all) > 0 {
		b.WriteString("\n" + a.paint(yellow, "Remote access:") + "\n")
		for _, p := range all {
			b.WriteString("  - " + oneLine(p) + "\n")
		}
	}
	if all := i.GetWeaker(); len(all) == 0 {
		b.WriteString("\n" + a.paint(green, "Everything works on this machine.") + "\n")
	} else {
		b.WriteString("\n" + a.paint(yellow, "Not available on this machine:") + "\n")
		for _, w := range all {
			b.WriteString("  - " + oneLine(w) + "\n")
		}
	}
	if all := i.GetSwitches(); len(all) > 0 {
		b.WriteString("\nEnabled or disabled by hand:\n")
		for _, s := range all {
			b.WriteString("  - " + printable(s.GetTask()+" "+switchText(s)) + "\n")
		}
	}
	switch all := i.GetDiagnostics(); {
	case len(all) == 0:
		b.WriteString("\n" + a.paint(green, "The configuration is good.") + "\n")
	case hasErrors(all) && i.GetConfigurationReadAt() != nil:
		b.WriteString("\n" + a.paint(red, "The configuration has errors. The last good one is in force, read "+moment(i.GetConfigurationReadAt())+":") + "\n")
	case hasErrors(all):
		b.WriteString("\n" + a.paint(red, "The configuration has errors, and no earlier one is known to be good. No task can be started:") + "\n")
	default:
		b.WriteString("\n" + a.paint(yellow, "The configuration is in force, with warnings:") + "\n")
	}
	for _, d := range i.GetDiagnostics() {
		b.WriteString(lines(d.Text) + "\n")
	}
	return a.print(b.String())
}

// remoteText is what clients on other machines depend on.
func remoteText(r *rtaskv1.RemoteAccess) string {
	if r == nil {
		return ""
	}
	text := printable(r.GetUrl())
	if r.GetAuthority() != "" {
		text += ", authority " + printable(r.GetAuthority())
	}
	if t := r.GetAuthorityExpiresAt(); t != nil {
		text += " until " + moment(t)
	}
	if t := r.GetServerExpiresAt(); t != nil {
		text += ", the gateway's certificate until " + moment(t)
	}
	return text
}

// failed reports whether a socket is not there that was to be.
func failed(u *rtaskv1.SocketUnit) bool { return u.GetState() == "failed" }

// printSockets prints where rtask is reached, and of what failed how to mend it.
func (a *app) printSockets(all []*rtaskv1.SocketUnit) error {
	if len(all) == 0 {
		return nil
	}
	var rows [][]string
	for _, u := range all {
		rows = append(rows, []string{u.GetUnit(), strings.Join(u.GetAddresses(), ", "), u.GetState()})
	}
	if err := a.print("\n"); err != nil {
		return err
	}
	if err := a.table([]column{{name: "SOCKET"}, {name: "ADDRESS", least: 16}, {name: "STATE"}}, rows); err != nil {
		return err
	}
	for _, u := range all {
		if !failed(u) {
			continue
		}
		unit := printable(u.GetUnit())
		text := "\n" + a.paint(red, unit+" failed: "+oneLine(u.GetProblem())+".") + "\n"
		if u.GetTaken() != "" {
			text += "  Free the address, or move the socket: systemctl edit " + unit + ", with these lines, for example:\n" +
				"    [Socket]\n    ListenStream=\n    ListenStream=" + printable(anotherPort(u.GetTaken())) + "\n"
		}
		text += "  Then: systemctl stop rtask-gateway.service; systemctl start " + unit + "\n" // it starts with the next connection
		if err := a.print(text); err != nil {
			return err
		}
	}
	return nil
}

// anotherPort is an address with a port that is likely to be free.
func anotherPort(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil || at.Port() > math.MaxUint16-10000 {
		return address
	}
	return netip.AddrPortFrom(at.Addr(), at.Port()+10000).String()
}

// socketJSON is a socket unit as --json prints it.
type socketJSON struct {
	Unit      string   `json:"unit"`
	Addresses []string `json:"addresses"`
	State     string   `json:"state"`
	Problem   string   `json:"problem,omitempty"`
}

// infoJSON is what the engine says of itself.
type infoJSON struct {
	Version     string            `json:"version"`
	Manager     string            `json:"manager"`
	StartedAt   string            `json:"started_at,omitempty"`
	Running     int32             `json:"running"`
	Queued      int32             `json:"queued"`
	Draining    bool              `json:"draining"`
	Sockets     []socketJSON      `json:"sockets"`
	Switches    []view.Switch     `json:"switches"`
	Weaker      []string          `json:"weaker"`
	Diagnostics []view.Diagnostic `json:"diagnostics"`
	// ConfigurationReadAt is of the configuration in force, absent: there is none.
	ConfigurationReadAt string `json:"configuration_read_at,omitempty"`
	// Remote is what clients on other machines depend on, absent: none are let in.
	Remote *remoteJSON `json:"remote,omitempty"`
}

type remoteJSON struct {
	URL                string   `json:"url"`
	Authority          string   `json:"authority,omitempty"`
	AuthorityExpiresAt string   `json:"authority_expires_at,omitempty"`
	ServerExpiresAt    string   `json:"server_expires_at,omitempty"`
	Problems           []string `json:"problems"`
}

func remoteToJSON(r *rtaskv1.RemoteAccess) *remoteJSON {
	if r == nil {
		return nil
	}
	return &remoteJSON{
		URL: r.GetUrl(), Authority: r.GetAuthority(), AuthorityExpiresAt: view.Time(r.GetAuthorityExpiresAt()), ServerExpiresAt: view.Time(r.GetServerExpiresAt()),
		Problems: view.List(r.GetProblems()),
	}
}

func infoToJSON(i *rtaskv1.InfoResponse) infoJSON {
	return infoJSON{
		Version: i.GetVersion(), Manager: i.GetManager(), StartedAt: view.Time(i.GetStartedAt()), Running: i.GetRunning(), Queued: i.GetQueued(),
		Draining: i.GetDraining(), Switches: view.Each(i.GetSwitches(), view.SwitchOf), Weaker: view.List(i.GetWeaker()),
		Sockets: view.Each(i.GetSockets(), func(u *rtaskv1.SocketUnit) socketJSON {
			return socketJSON{Unit: u.GetUnit(), Addresses: view.List(u.GetAddresses()), State: u.GetState(), Problem: u.GetProblem()}
		}),
		Diagnostics: view.Each(i.GetDiagnostics(), view.DiagnosticOf), ConfigurationReadAt: view.Time(i.GetConfigurationReadAt()),
		Remote: remoteToJSON(i.GetRemoteAccess()),
	}
}
