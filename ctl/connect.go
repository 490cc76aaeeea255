package ctl

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
)

// connect returns a client of the engine that the command line and the environment mean.
func (a *app) connect(c *cli.Context) (*client.Client, error) {
	path, err := a.socket(c)
	if err != nil {
		return nil, err
	}
	a.path = path
	return client.Dial(path), nil
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
