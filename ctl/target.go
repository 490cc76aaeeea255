package ctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/ctl/login"
)

// target is the engine that a command line and the environment mean.
type target struct {
	// socket is of this machine; "": remote is set.
	socket string
	remote *contexts.Credentials
	// context is where remote is; its name is "" for one that is not saved.
	context contexts.Context
	// from is what chose it, such as "--host" or "RTASK_CONTEXT"; "": nothing did.
	from string
}

// where returns the engine to talk to: flags win, then the environment, then the current context; else it is the one of this machine.
func (a *app) where(c *cli.Context) (target, error) {
	socket, user, host, name := c.String("socket"), c.Bool("user"), c.String("host"), c.String("context")
	var given []string
	for flag, is := range map[string]bool{"--socket": socket != "", "--user": user, "--host": host != "", "--context": name != ""} {
		if is {
			given = append(given, flag)
		}
	}
	if len(given) > 1 {
		return target{}, misuse(c, "--socket, --user, --host and --context exclude each other")
	}
	switch {
	case socket != "":
		return target{socket: socket, from: "--socket"}, nil
	case user:
		return target{socket: a.userSocket(), from: "--user"}, nil
	case host != "":
		return a.hostTarget(host, "--host")
	case name != "":
		return a.contextTarget(name, "--context")
	}
	var set []string
	for _, v := range []string{"RTASK_SOCKET", "RTASK_HOST", "RTASK_CONTEXT"} {
		if a.env.get(v) != "" {
			set = append(set, v)
		}
	}
	if len(set) > 1 {
		return target{}, &hintError{fmt.Errorf("%s are both set, and each means another engine", strings.Join(set[:2], " and ")), "unset one, or use --socket, --host or --context"}
	}
	switch strings.Join(set, "") {
	case "RTASK_SOCKET":
		return target{socket: a.env.get("RTASK_SOCKET"), from: "RTASK_SOCKET"}, nil
	case "RTASK_HOST":
		return a.hostTarget(a.env.get("RTASK_HOST"), "RTASK_HOST")
	case "RTASK_CONTEXT":
		return a.contextTarget(a.env.get("RTASK_CONTEXT"), "RTASK_CONTEXT")
	}
	folder, ok := a.folder()
	if !ok {
		return a.localTarget(""), nil
	}
	_, current, err := folder.All()
	if err != nil {
		return target{}, &hintError{err, "--socket, --user or --context local does without the contexts"}
	}
	if current != "" {
		return a.contextTarget(current, "the current context")
	}
	return a.localTarget(""), nil
}

// localTarget is the engine of this machine.
func (a *app) localTarget(from string) target {
	if a.env.UID != 0 && !exists(client.DefaultPath) && exists(a.userSocket()) {
		return target{socket: a.userSocket(), from: from}
	}
	return target{socket: client.DefaultPath, from: from}
}

// folder is where the contexts are; ok is false where the environment does not say it.
func (a *app) folder() (_ contexts.Folder, ok bool) {
	if dir := a.env.get("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return contexts.Folder{Path: filepath.Join(dir, "rtask")}, true
	}
	if home := a.env.get("HOME"); filepath.IsAbs(home) {
		return contexts.Folder{Path: filepath.Join(home, ".config", "rtask")}, true
	}
	return contexts.Folder{}, false
}

// needFolder is folder for a command that is about contexts.
func (a *app) needFolder() (contexts.Folder, error) {
	f, ok := a.folder()
	if !ok {
		return f, errors.New("neither HOME nor XDG_CONFIG_HOME is set, so there is no place for contexts")
	}
	return f, nil
}

// contextTarget is the engine of a context.
func (a *app) contextTarget(name, from string) (target, error) {
	if name == contexts.Local {
		return a.localTarget(from), nil
	}
	folder, err := a.needFolder()
	if err != nil {
		return target{}, err
	}
	found, err := folder.Get(name)
	if errors.Is(err, contexts.ErrNone) {
		return target{}, noContext(name)
	}
	if err != nil {
		return target{}, err
	}
	return target{remote: a.credentials(folder, found), context: found, from: from}, nil
}

func noContext(name string) error {
	return &hintError{fmt.Errorf("there is no context %q", name), "rtaskctl context list shows those there are"}
}

// hostTarget is the engine at a URL: with the files that the environment names, else with those of a context.
func (a *app) hostTarget(text, from string) (target, error) {
	server, err := client.ParseURL(text)
	if err != nil {
		return target{}, fmt.Errorf("%s: %w", from, err)
	}
	if cert := a.env.get("RTASK_CERT"); cert != "" {
		own := contexts.Context{URL: server, CertFile: cert, KeyFile: a.env.get("RTASK_KEY"), CAFile: a.env.get("RTASK_CA")}
		return target{remote: contexts.Files(own, a.keys()), context: own, from: from}, nil
	}
	if folder, ok := a.folder(); ok {
		all, current, err := folder.All()
		if err != nil {
			return target{}, err
		}
		if found, ok := byURL(all, current, server); ok {
			return target{remote: a.credentials(folder, found), context: found, from: from}, nil
		}
	}
	return target{}, &hintError{fmt.Errorf("you are not logged in to %s", hostOf(server)), "rtaskctl login " + strings.TrimPrefix(server, "https://")}
}

// byURL returns the context of a server: the current one if it is that, else the first.
func byURL(all []contexts.Context, current, server string) (found contexts.Context, ok bool) {
	for _, c := range all {
		if c.URL == server && (!ok || c.Name == current) {
			found, ok = c, true
		}
	}
	return found, ok
}

// credentials are those of a saved context.
func (a *app) credentials(folder contexts.Folder, c contexts.Context) *contexts.Credentials {
	if c.Key == keystore.Memory {
		return folder.Fleeting(c, func(ctx context.Context, e *client.Endpoint) (*tls.Certificate, error) {
			if a.env.get(login.GitHubURL) == "" {
				return nil, &hintError{
					fmt.Errorf("this context is for workflows of GitHub Actions, and %s is not set", login.GitHubURL),
					"the workflow needs permissions: id-token: write",
				}
			}
			said, err := e.Authority(ctx)
			if err != nil {
				return nil, err
			}
			return a.enrolWorkflow(ctx, e, said, c.Provider)
		})
	}
	return folder.Credentials(c, a.keys(), func(text string) { a.say("rtaskctl: %s", oneLine(text)) })
}

// keys is where keys are looked for and made.
func (a *app) keys() keystore.Store {
	s := keystore.Store{Socket: a.env.get("SSH_AUTH_SOCK")}
	if a.canAsk() {
		s.Ask = func(ctx context.Context, prompt string) ([]byte, error) { return a.ask(ctx, prompt, false) }
	}
	return s
}

// hostOf is the host of a URL, without the port.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Hostname()
}

// addressOf is the host and the port of a URL.
func addressOf(text string) string { return strings.TrimPrefix(text, "https://") }

// remoteHint is what may help with an error of an engine on another machine, or of its context.
func (a *app) remoteHint(err error) string {
	c := a.target.context
	again := "rtaskctl login " + c.Name
	if c.Name == "" {
		again = "rtaskctl login " + addressOf(c.URL)
	}
	if c.CertFile != "" {
		again = "put another certificate into " + c.CertFile
	}
	var refused *client.Refused
	var key *contexts.KeyError
	switch {
	case errors.As(err, &refused):
		switch refused.Cause {
		case client.CertificateExpired, client.CertificateExpiredThere:
			return again
		case client.CertificateRequired:
			return "rtaskctl login " + addressOf(c.URL)
		case client.CertificateUnknown:
			return "its administrator names it in remote.authorities, or: rtaskctl login"
		case client.CertificateRefused:
			return "ask its administrator (rtaskctl audit --refused)"
		case client.AuthorityChanged:
			switch {
			case c.CAFile != "":
				return "the authority that is expected is in " + c.CAFile
			case c.Name != "":
				return "if that is right: rtaskctl login --forget " + c.Name
			}
		}
	case errors.As(err, new(*contexts.Ended)):
		return "rtaskctl login --join TOKEN; an administrator makes one with rtaskctl ca issue"
	case errors.Is(err, contexts.ErrLoggedOut):
		return again
	case errors.Is(err, keystore.ErrLocked):
		return "ssh-add -X unlocks it"
	case errors.Is(err, keystore.ErrNobody) && errors.As(err, &key):
		return "type it once on a terminal, with rtaskctl whoami: an ssh-agent keeps the key then"
	case errors.As(err, &key):
		return again
	}
	return ""
}
