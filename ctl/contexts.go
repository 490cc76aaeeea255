package ctl

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/sandbox/wording"
)

func (a *app) contextCommand() *cli.Command {
	return &cli.Command{
		Name: "context", Usage: "list, choose, rename and remove servers that you logged in to", UsageText: "rtaskctl context list|use|rename|remove",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the contexts; * marks the current one", UsageText: "rtaskctl context list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.contextList,
			},
			{
				Name: "use", Usage: "send commands to a context's server from now on", UsageText: "rtaskctl context use NAME|local",
				Description: "local is the engine of this machine.", Action: a.contextUse,
			},
			{Name: "rename", Usage: "give a context another name", UsageText: "rtaskctl context rename NAME NEW", Action: a.contextRename},
			{
				Name: "remove", Usage: "forget a context, its certificate and its key", UsageText: "rtaskctl context remove NAME",
				Description: "The certificate stays valid. rtaskctl logout revokes it.", Action: a.contextRemove,
			},
		},
	}
}

// contextJSON is a context as --json prints it.
type contextJSON struct {
	Name      string `json:"name"`
	URL       string `json:"url"`
	Current   bool   `json:"current"`
	Identity  string `json:"identity,omitempty"`
	Key       string `json:"key,omitempty"`
	ExpiresAt string `json:"expires_at,omitempty"`
	Problem   string `json:"problem,omitempty"`

	// who, left and todo are for people.
	who, left, todo string
}

// contextView is what is known of a context without asking its server.
func contextView(folder contexts.Folder, c contexts.Context, current string) contextJSON {
	v := contextJSON{Name: c.Name, URL: c.URL, Current: c.Name == current, Key: string(c.Key)}
	if c.Key == keystore.Memory {
		v.left = "for workflows of GitHub Actions"
		return v
	}
	cert, err := folder.Certificate(c.Name)
	if c.CertFile != "" {
		v.Key = string(keystore.Plain)
		if c.KeyFile == "" {
			v.Key = string(keystore.Agent)
		}
		cert, err = contexts.ReadCertificate(c.CertFile)
	}
	again := "rtaskctl login " + c.Name
	switch {
	case contexts.IsLoggedOut(err):
		v.Problem, v.left, v.todo = "logged out", "logged out", again
		return v
	case err != nil:
		v.Problem, v.left = err.Error(), err.Error()
		return v
	}
	leaf := cert.Leaf
	v.who, v.Identity, v.ExpiresAt = shortName(leaf), leaf.Subject.String(), view.Time(timestamppb.New(leaf.NotAfter))
	if len(leaf.URIs) == 1 {
		v.Identity = leaf.URIs[0].String()
	}
	if left := time.Until(leaf.NotAfter); left > 0 {
		v.left = wording.Span(left, 1) + " left"
		return v
	}
	v.left, v.todo = "expired "+wording.Span(time.Since(leaf.NotAfter), 1)+" ago", again
	if c.CertFile != "" {
		v.todo = ""
	}
	return v
}

func (a *app) contextList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	folder, err := a.needFolder()
	if err != nil {
		return err
	}
	all, current, err := folder.All()
	if err != nil {
		return err
	}
	views := view.Each(all, func(one contexts.Context) contextJSON { return contextView(folder, one, current) })
	if c.Bool("json") {
		return a.printJSON(views)
	}
	if len(all) == 0 {
		a.say("There are no contexts; rtaskctl login HOST makes one.")
		return nil
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, v := range views {
		mark := " "
		if v.Current {
			mark = "*"
		}
		row := mark + " " + v.Name + "\t" + printable(v.URL) + "\t" + printable(v.who) + "\t" + oneLine(v.left)
		if v.todo != "" {
			row += "\t" + v.todo
		}
		if _, err := fmt.Fprintln(w, row); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return a.print(b.String())
}

func (a *app) contextUse(c *cli.Context) error {
	name, err := oneArg(c, "NAME")
	if err != nil {
		return err
	}
	return a.changeContext(name, func(f contexts.Folder) error { return f.Use(c.Context, name) })
}

func (a *app) contextRename(c *cli.Context) error {
	if c.NArg() != 2 {
		return misuse(c, "NAME and NEW are needed, not %d arguments", c.NArg())
	}
	from, to := c.Args().Get(0), c.Args().Get(1)
	return a.changeContext(from, func(f contexts.Folder) error { return f.Rename(c.Context, from, to) })
}

func (a *app) contextRemove(c *cli.Context) error {
	name, err := oneArg(c, "NAME")
	if err != nil {
		return err
	}
	return a.changeContext(name, func(f contexts.Folder) error {
		cert, _ := f.Certificate(name)
		own, err := f.Get(name)
		if err != nil {
			return err
		}
		if err := f.Remove(c.Context, name); err != nil || cert == nil || own.CertFile != "" {
			return err
		}
		a.keys().Forget(cert.Leaf.PublicKey)
		return nil
	})
}

// changeContext changes something about a context.
func (a *app) changeContext(name string, by func(contexts.Folder) error) error {
	folder, err := a.needFolder()
	if err != nil {
		return err
	}
	if err = by(folder); errors.Is(err, contexts.ErrNone) {
		return noContext(name)
	}
	return err
}
