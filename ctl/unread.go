package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// unread returns a file of the engine's configuration that was changed after the engine read it, "" if none was, or nobody knows: the
// engine is on another machine, its folder is not known, or this user may not look into it.
func (a *app) unread(c *cli.Context) string {
	if a.configOf() == "" {
		return ""
	}
	info, err := call(a, c, jobs.Info, &rtaskv1.InfoRequest{})
	if err != nil {
		return ""
	}
	return a.unreadSince(info)
}

// unreadSince is unread, with the engine's word of when it read the configuration.
func (a *app) unreadSince(info *rtaskv1.InfoResponse) string {
	folder, read := a.configOf(), info.GetConfigurationReadAt()
	if folder == "" || read == nil {
		return ""
	}
	return changedSince(folder, read.AsTime())
}

// changedSince returns a file of the configuration in a folder that was changed after at, "" if none was.
func changedSince(folder string, at time.Time) string {
	changed := func(path string) bool {
		fi, err := os.Stat(path)
		return err == nil && fi.ModTime().After(at)
	}
	if file := filepath.Join(folder, "rtask.hcl"); changed(file) {
		return file
	}
	tasks := filepath.Join(folder, "tasks.d")
	all, err := os.ReadDir(tasks)
	if err != nil {
		return ""
	}
	for _, e := range all {
		name := e.Name()
		for _, suffix := range []string{".hcl", ".hcl.json", ".toml"} {
			if file := filepath.Join(tasks, name); !strings.HasPrefix(name, ".") && strings.HasSuffix(name, suffix) && changed(file) {
				return file
			}
		}
	}
	return ""
}
