package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// New makes a leaf with limits. optional lets a limit go that has no controller here. When New fails, nothing is left.
func (t *Tree) New(name string, limits spec.Limits, optional bool) (*Group, error) {
	if len(limits.AllowedCPUs) > 0 {
		if err := t.enable("cpuset"); err != nil && !optional {
			return nil, err
		}
	}
	for _, c := range limits.Controllers() {
		if !optional && !slices.Contains(t.controllers, c) {
			return nil, fmt.Errorf("cannot limit the job: the %s controller is not available in %s", c, t.group)
		}
	}
	g := &Group{dir: filepath.Join(t.dir, name), path: filepath.Join(t.group, name)}
	if err := unix.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the job's control group: %s: %w", g.dir, err)
	}
	if err := t.limit(g, limits, optional); err != nil {
		_ = os.Remove(g.dir) // the first error is the one that says something
		return nil, err
	}
	fd, err := open(g.dir, unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		_ = os.Remove(g.dir) // the first error is the one that says something
		return nil, fmt.Errorf("cannot open the job's control group: %w", err)
	}
	g.fd = fd
	return g, nil
}
