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

// jobs names the methods that call and ask take, such as jobs.Status.
type jobs = rtaskv1connect.JobServiceClient

// method is one of them.
type method[Q, R any] func(jobs, context.Context, *Q) (*R, error)

// call makes one call to the engine that the command line and the environment mean.
func call[Q, R any](a *app, c *cli.Context, m method[Q, R], request *Q) (*R, error) {
	engine, err := a.connect(c)
	if err != nil {
		return nil, err
	}
	return ask(c.Context, engine, m, request)
}

// ask makes one call to an engine.
func ask[Q, R any](ctx context.Context, engine *client.Client, m method[Q, R], request *Q) (*R, error) {
	return m(engine.Jobs, ctx, request)
}

// connect returns a client of the engine that the command line and the environment mean. Run closes it.
func (a *app) connect(c *cli.Context) (*client.Client, error) {
	if a.engine != nil {
		return a.engine, nil
	}
	path, err := a.socket(c)
	if err != nil {
		return nil, err
	}
	a.path, a.engine = path, client.Dial(path)
	return a.engine, nil
}

// socket is the control socket to use.
func (a *app) socket(c *cli.Context) (string, error) {
	path, user := c.String("socket"), c.Bool("user")
	switch {
	case path != "" && user:
		return "", misuse(c, "--socket and --user exclude each other")
	case path != "":
		return path, nil
	case user:
		return a.userSocket(), nil
	}
	if path := a.env.get("RTASK_SOCKET"); path != "" {
		return path, nil
	}
	if a.env.UID != 0 && !exists(client.DefaultPath) && exists(a.userSocket()) {
		return a.userSocket(), nil
	}
	return client.DefaultPath, nil
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
