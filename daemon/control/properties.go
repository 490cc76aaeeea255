package control

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sys/unix"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// defaultWeight is a weight of which nothing is said, of processors and of IO (cgroup-v2.rst).
	defaultWeight = 100
	// longestTimeoutStop is the longest timeout_stop_sec of somebody who is not root, systemd's own default
	// (DefaultTimeoutStopSec=): the machine's shutdown waits for it.
	longestTimeoutStop = 90 * time.Second
)

// properties are those of a command that c starts, with the defaults of commands for what list does not say.
func (s *Server) properties(c auth.Caller, list []*rtaskv1.Property) (config.Properties, error) {
	p := config.Properties{TimeoutStop: commandTimeoutStop, Sandbox: config.CommandSandbox()}
	var all []config.Property
	for _, one := range list {
		all = append(all, config.Property{Name: one.GetName(), Value: one.GetValue()})
	}
	if err := p.Parse(all); err != nil {
		return p, coded(connect.CodeInvalidArgument, err)
	}
	// What an engine that is not root may give its own user is the kernel's and systemd's decision.
	if c.Kind != auth.Remote && (c.Peer.UID == 0 || int64(c.Peer.UID) == int64(os.Geteuid())) {
		return p, nil
	}
	err := s.raises(p.Limits)
	if err == nil {
		err = escapes(p.Sandbox)
	}
	if err == nil && p.TimeoutStop > longestTimeoutStop {
		err = fmt.Errorf("a timeout_stop_sec above %v, for which the machine's shutdown waits", longestTimeoutStop)
	}
	if err != nil {
		return p, fail(connect.CodePermissionDenied, "property", fmt.Errorf("permission denied: only root may set %w", err))
	}
	return p, nil
}

// raises returns an error for what would give a job more than one has of which nothing is said, at the cost of others. It
// completes "only root may set ".
func (s *Server) raises(l spec.Limits) error {
	above := func(v *uint64, most uint64) bool { return v != nil && *v > most }
	switch {
	case l.Nice != nil && *l.Nice < 0:
		return errors.New("a nice value below 0")
	case l.OOMScoreAdjust != nil && *l.OOMScoreAdjust < 0:
		return errors.New("an oom_score_adjust below 0")
	case above(l.CPUWeight, defaultWeight):
		return fmt.Errorf("a cpu_weight above %d", defaultWeight)
	case above(l.IOWeight, defaultWeight):
		return fmt.Errorf("an io_weight above %d", defaultWeight)
	case l.TasksMax != nil && s.Unlimited.TasksMax != nil && *l.TasksMax > *s.Unlimited.TasksMax:
		return fmt.Errorf("a tasks_max above %d, which is systemd's DefaultTasksMax", *s.Unlimited.TasksMax)
	case l.Slice != "" && l.Slice != "rtask.slice":
		return errors.New("slice, since it may have been given more than others")
	}
	for _, r := range l.RLimits {
		own, known := s.Unlimited.RLimit(r.Resource)
		if !known || r.Hard > own.Hard {
			return fmt.Errorf("a hard limit_%s above %s", r.Resource, rlimitText(own.Hard))
		}
	}
	for _, d := range l.Devices() {
		if !isNode(d) {
			// The engine would look at it as root.
			return fmt.Errorf("a limit for %s: it is not the node of a device, such as /dev/sda or one in /dev/disk or /dev/mapper", d)
		}
	}
	return nil
}

// escapes returns an error for a sandbox that would give a job more than its user has: rtask makes it as root. It completes
// "only root may set ".
func escapes(b spec.Sandbox) error {
	if name, why := config.Privileged(b); name != "" {
		return fmt.Errorf("%s, %s", name, why)
	}
	for _, t := range b.TemporaryFileSystem {
		for o := range strings.SplitSeq(t.Options, ",") {
			if name, value, _ := strings.Cut(o, "="); (name == "size" || name == "nr_inodes") && !isUsual(name, value) {
				return fmt.Errorf("a %s of temporary_file_system above a tenth of the machine's memory, or in other units than K, M, G and %%", name)
			}
		}
	}
	// A set-user-ID program trusts the files that it reads.
	if names := b.NeedNamespaces(); len(names) > 0 && !b.NoNewPrivileges {
		return fmt.Errorf("%s without no_new_privileges", names[0])
	}
	return nil
}

// isUsual reports whether a size or a number of inodes of a tmpfs(5) is not above what it is by itself.
func isUsual(name, value string) bool {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return false
	}
	most := uint64(info.Totalram) * uint64(info.Unit) / 10
	if name == "nr_inodes" {
		most /= uint64(os.Getpagesize())
	}
	unit := uint64(1)
	switch digits := strings.TrimRight(value, "kKmMgG%"); value[len(digits):] {
	case "":
	case "k", "K":
		unit = 1 << 10
	case "m", "M":
		unit = 1 << 20
	case "g", "G":
		unit = 1 << 30
	case "%":
		unit, most = 1, 10
		if name != "size" {
			return false
		}
	default:
		return false
	}
	n, err := strconv.ParseUint(strings.TrimRight(value, "kKmMgG%"), 10, 64)
	return err == nil && n > 0 && n <= most/unit // 0 is no limit
}

func rlimitText(v uint64) string {
	if v == spec.Infinity {
		return "infinity"
	}
	return fmt.Sprint(v)
}

// isNode reports whether a path, which is clean, is in one of the folders of /dev that hold disks. Nobody but root can put
// anything there, unlike into /dev/shm.
func isNode(file string) bool {
	dir := path.Dir(file)
	return dir == "/dev" || dir == "/dev/mapper" || strings.HasPrefix(dir, "/dev/disk/") && path.Dir(dir) == "/dev/disk"
}
