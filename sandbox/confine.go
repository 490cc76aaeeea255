package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/landlock"
	"github.com/rtask/rtask/sandbox/spec"
)

// probeTime is how long the look at what a shim can give may take: long, since a busy machine must not pass for one that can give
// nothing.
const probeTime = time.Minute

// findConfinement finds out what shims can give. Root's shims can give everything, others what works in a user namespace. Without
// control groups there are no namespaces: processes of a job could stay in them unnoticed.
func (h *Host) findConfinement(ctx context.Context) {
	const noNamespaces = "Jobs have no namespaces (%s): a task that names a switch of its sandbox that needs them is refused, and those that a profile " +
		"brought in are done without (rtaskctl tasks show TASK lists them). Filters of system calls hold."
	c := &h.confinement
	switch {
	case h.manager == nil:
		c.why = "it takes systemd"
	case h.privileged:
		c.namespaces = true
	default:
		missing, err := h.probe(ctx)
		if c.namespaces, c.missing = err == nil, missing; err != nil {
			c.why = "it takes an rtaskd that runs as root, or user namespaces: " + err.Error()
		}
	}
	if !c.namespaces {
		h.weaker = append(h.weaker, fmt.Sprintf(noNamespaces, c.why))
		return
	}
	if !h.privileged {
		h.weaker = append(h.weaker, "Jobs whose sandbox needs namespaces are in a user namespace, as with private_users: all users but their own, root too, are nobody to them, "+
			"and set-user-ID programs give them nothing. Without private_pids there is no protect_proc and no proc_subset.")
	}
	reasons := map[string][]string{}
	for name, why := range c.missing {
		reasons[why] = append(reasons[why], name)
	}
	for why, names := range reasons {
		slices.Sort(names)
		h.weaker = append(h.weaker, fmt.Sprintf("No job can be given %s: %s. A task that names one is refused, and those that a profile brought in are done without.",
			strings.Join(names, ", "), why))
	}
	if _, err := landlock.Version(); err != nil {
		h.weaker = append(h.weaker, "The files of the profile strict have no second layer under the mounts: Landlock cannot be had ("+err.Error()+").")
	}
}

// probe has a shim try what it can give in a user namespace.
func (h *Host) probe(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.opts.Shim, "probe")
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin", "GOMAXPROCS=1"}, "/"
	cmd.SysProcAttr = userNamespace()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = errors.New(strings.TrimPrefix(text, "rtask-shim: "))
		}
		return nil, err
	}
	var missing map[string]string
	if err := cbor.Unmarshal(out, &missing); err != nil {
		return nil, fmt.Errorf("cannot read what the shim says: %w", err)
	}
	return missing, nil
}

// userNamespace returns how a shim starts that makes namespaces without root: in a user namespace with only its own user and group, where
// it may make and enter namespaces. It gets no further rights over the machine.
func userNamespace() *unix.SysProcAttr {
	uid, gid := os.Geteuid(), os.Getegid()
	return &unix.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SETPCAP, unix.CAP_NET_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN},
	}
}

// Confines reports whether jobs can have namespaces here.
func (h *Host) Confines() bool { return h.confinement.namespaces }

// Give returns what a job gets of s here, and the names of the switches that it does without.
func (h *Host) Give(s spec.Sandbox) (given spec.Sandbox, missing []string) {
	switch {
	case !h.confinement.namespaces:
		return s.WithoutNamespaces(), s.NeedNamespaces()
	case h.privileged: // who has all
		return s, nil
	}
	for _, name := range s.NeedNamespaces() {
		if h.WhyNot(s, name) != "" {
			missing = append(missing, name)
		}
	}
	given = s.Without(missing...)
	// Comes with the user namespace of the shim.
	given.PrivateUsers = given.PrivateUsers || given.Namespaces()
	return given, missing
}

// WhyNot says why a switch of s cannot be given here; "": it can.
func (h *Host) WhyNot(s spec.Sandbox, name string) string {
	c := h.confinement
	switch {
	case !c.namespaces:
		return c.why
	case c.missing[name] != "":
		return c.missing[name]
	case !h.privileged && (name == "protect_proc" || name == "proc_subset") && !s.PrivatePIDs:
		return "it takes private_pids, since rtaskd does not run as root"
	}
	return ""
}

// RuntimeDirectory is spec.Sandbox.RuntimeDirectory of jobs.
func (h *Host) RuntimeDirectory() string {
	if h.opts.Hide == spec.DefaultRuntimeDirectory {
		return ""
	}
	return h.opts.Hide
}

// Private are the files and folders of Options.Private.
func (h *Host) Private() []string { return slices.Clone(h.opts.Private) }
