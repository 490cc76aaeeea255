package ctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// jobs names the methods that call takes, such as jobs.Status.
type jobs = rtaskv1connect.JobServiceClient

// call makes one call to the engine that the command line and the environment mean.
func call[Q, R any](a *app, c *cli.Context, m func(jobs, context.Context, *Q) (*R, error), request *Q) (*R, error) {
	engine, err := a.connect(c)
	if err != nil {
		return nil, err
	}
	return m(engine.Jobs, c.Context, request)
}

// connect returns a client of the engine that the command line and the environment mean. Run closes it.
func (a *app) connect(c *cli.Context) (*client.Client, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	where, err := a.where(c)
	if err != nil {
		return nil, err
	}
	a.target = where
	if err := a.dial(); err != nil {
		return nil, err
	}
	return a.engine, nil
}

// dial makes the client of the engine of a.target.
func (a *app) dial() error {
	if a.target.remote == nil {
		a.path, a.engine = a.target.socket, client.Dial(a.target.socket)
		return nil
	}
	server, err := a.target.remote.Server()
	if err != nil {
		return err
	}
	engine, err := client.DialTLS(server, a.target.remote)
	if err != nil {
		return err
	}
	a.engine = engine
	return nil
}

// socket is the control socket to use, for a command that is about this machine.
func (a *app) socket(c *cli.Context, what string) (string, error) {
	where, err := a.where(c)
	if err == nil && where.remote != nil {
		return "", &hintError{fmt.Errorf("%s, so it does not work with %s", what, where.from), "run it on " + hostOf(where.context.URL) + ", or use --socket"}
	}
	return where.socket, err
}

// userSocket is where the user's own engine listens.
func (a *app) userSocket() string {
	dir := a.env.get("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", a.env.UID) // pam_systemd(8)
	}
	return filepath.Join(dir, "rtask", "rtask.sock")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
