package jail

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

// content is what is seen at a place.
type content int

// The contents, in the order in which one goes before another at the same place, as systemd has it.
const (
	hidden   content = iota + 1 // nothing, and nothing can be done about it
	bound                       // what is at source on the machine
	private                     // an empty file system
	devices                     // an empty file system with the symbolic links of /dev
	messages                    // mqueue(7)
	own                         // what is there on the machine, with other attributes
)

// almostEmpty are the options of a file system that holds only mount points, as systemd has them (TMPFS_LIMITS_EMPTY_OR_ALMOST of its
// mountpoint-util.h).
const almostEmpty = "mode=755,size=4m,nr_inodes=1k"

// place is a path of the machine and what a job sees there.
type place struct {
	path    string
	content content
	source  string // of bound
	single  bool   // bound without what is mounted below it
	options string // of private, as tmpfs(5); put adds the usual limits
	// What may be done there: one of readOnly and writable at most, and of noExec and exec.
	readOnly, writable, noExec, exec bool
	// optional says that the place is skipped if its path is missing; kept, that it stays visible below a place that hides it.
	optional, kept bool
	// by is the switch that asked for it. named says that the user or the configuration named its path.
	by    string
	named bool
}

// under is what holds for all below a place.
type under struct {
	path             string
	content          content
	readOnly, noExec bool
}

// wanted are the places that s asks for, for jobs that start in dir. Paths are as they were written.
func wanted(s spec.Sandbox, dir string) []place {
	var all []place
	add := func(by string, p place, paths ...string) {
		for _, path := range paths {
			p.by, p.path = by, path
			if rest, ok := strings.CutPrefix(path, "-"); ok {
				p.path, p.optional = rest, true
			}
			all = append(all, p)
		}
	}
	readOnly, hide, keep := place{content: own, readOnly: true}, place{content: hidden}, place{content: own, writable: true}
	if s.PrivateTmp {
		add("private_tmp", place{content: private, options: "mode=1777"}, "-/tmp", "-/var/tmp")
	}
	if s.PrivateDevices {
		add("private_devices", place{content: devices, options: "mode=755,size=4m,nr_inodes=64k", readOnly: true, noExec: true}, "/dev")
		for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "hugepages"} {
			add("private_devices", place{content: bound, source: "/dev/" + name, optional: true}, "/dev/"+name)
		}
		if !s.PrivateIPC {
			add("private_devices", place{content: bound, source: "/dev/shm", optional: true}, "/dev/shm")
			add("private_devices", place{content: bound, source: "/dev/mqueue", optional: true}, "/dev/mqueue")
		}
	}
	if s.PrivateIPC {
		add("private_ipc", place{content: private, options: "mode=1777"}, "-/dev/shm")
		add("private_ipc", place{content: messages}, "-/dev/mqueue")
	}
	switch s.ProtectSystem {
	case "strict":
		add("protect_system", readOnly, "/")
		add("protect_system", keep, "-/proc", "-/sys", "-/dev", "-/home", "-/root", "-/run/user")
	case "full":
		add("protect_system", readOnly, "-/etc")
		fallthrough
	case "true":
		add("protect_system", readOnly, "-/usr", "-/boot", "-/efi", "-/bin", "-/sbin", "-/lib", "-/lib32", "-/lib64", "-/libx32")
	}
	homes := []string{"-/home", "-/root", "-/run/user"}
	switch s.ProtectHome {
	case "true":
		add("protect_home", hide, homes...)
	case "read-only":
		add("protect_home", readOnly, homes...)
	case "tmpfs":
		add("protect_home", place{content: private, readOnly: true, options: almostEmpty}, homes...)
	}
	if s.ProtectKernelTunables {
		add("protect_kernel_tunables", readOnly, "-/proc/acpi", "-/proc/apm", "-/proc/asound", "-/proc/bus", "-/proc/fs", "-/proc/irq",
			"-/proc/latency_stats", "-/proc/mtrr", "-/proc/scsi", "-/proc/sys", "-/proc/sysrq-trigger", "-/proc/timer_stats", "-/sys")
		add("protect_kernel_tunables", hide, "-/proc/kallsyms", "-/proc/kcore")
		add("protect_kernel_tunables", keep, "-/sys/fs/cgroup", "-/sys/fs/selinux")
	}
	if s.ProtectControlGroups {
		add("protect_control_groups", readOnly, "-/sys/fs/cgroup")
	}
	if s.ProtectKernelModules {
		add("protect_kernel_modules", hide, "-/usr/lib/modules", "-/lib/modules")
	}
	if s.ProtectKernelLogs {
		add("protect_kernel_logs", hide, "-/proc/kmsg", "-/dev/kmsg")
	}
	if s.PrivatePIDs {
		// systemctl(1) of root asks there who systemd is, which has no number in another PID namespace, and gives up. Without it
		// it takes the bus.
		add("private_pids", hide, "-/run/systemd/private")
		if uid := os.Geteuid(); uid != 0 {
			add("private_pids", hide, fmt.Sprintf("-/run/user/%d/systemd/private", uid)) // likewise of its own manager
		}
	}
	if s.HideRun {
		add("profile", place{content: private, readOnly: true, options: almostEmpty}, "/run")
		if !s.PrivateNetwork { // where /etc/resolv.conf leads to
			for _, path := range []string{"/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/resolvconf/resolv.conf",
				"/run/NetworkManager/resolv.conf"} {
				add("profile", place{content: bound, source: path, readOnly: true, optional: true}, path)
			}
		}
	}
	if s.HideUsers {
		// A non-root engine cannot make /run/user if that is missing, and has no manager there then.
		add("profile", place{content: private, readOnly: true, options: almostEmpty, optional: os.Geteuid() != 0}, "/run/user")
		add("profile", place{content: private, readOnly: true, options: almostEmpty, optional: true}, "/run/screen")
	}
	add("profile", place{content: hidden, optional: true}, s.Hidden...)
	// Always: a job that can start jobs could leave its sandbox.
	sockets := place{content: private, readOnly: true, options: almostEmpty, optional: true}
	if s.Runtime() != spec.DefaultRuntimeDirectory {
		add("profile", sockets, spec.DefaultRuntimeDirectory) // of root's engine, if there is one as well
	}
	sockets.optional, sockets.kept = len(s.LoadCredential) == 0, len(s.LoadCredential) > 0
	add("profile", sockets, s.Runtime())
	list := len(all)
	add("read_only_paths", readOnly, s.ReadOnlyPaths...)
	add("read_write_paths", keep, s.ReadWritePaths...)
	add("inaccessible_paths", hide, s.InaccessiblePaths...)
	add("exec_paths", place{content: own, exec: true}, s.ExecPaths...)
	add("no_exec_paths", place{content: own, noExec: true}, s.NoExecPaths...)
	for _, t := range s.TemporaryFileSystem {
		add("temporary_file_system", place{content: private, options: t.Options, readOnly: t.ReadOnly}, t.Path)
	}
	for _, b := range s.Binds {
		by := "bind_paths"
		if b.ReadOnly {
			by = "bind_read_only_paths"
		}
		add(by, place{content: bound, source: b.Source, readOnly: b.ReadOnly, single: b.Single, optional: b.Optional, kept: true}, b.Destination)
	}
	if dir != "/" {
		add("workdir", place{content: own, writable: true, kept: true}, dir)
	}
	for i := range all[list:] {
		all[list+i].named = true
	}
	return all
}

// arrange makes places, whose paths are without symbolic links by now, into the order in which they are made: what is above
// first. What makes no difference is left out, and what is hidden stays so.
func arrange(places []place) []place {
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(comparePaths(a.path, b.path), cmp.Compare(a.content, b.content))
	})
	var merged []place
	for _, p := range places {
		if n := len(merged); n > 0 && merged[n-1].path == p.path {
			merge(&merged[n-1], p)
		} else {
			merged = append(merged, p)
		}
	}
	// A place that must be visible cannot be below a folder that no process can enter, nor be that folder.
	for i, p := range merged {
		if p.content != hidden || p.by != "protect_home" && p.by != "profile" {
			continue
		}
		if p.kept {
			merged[i].content, merged[i].writable = own, !p.readOnly
			if p.source != "" && p.source != p.path {
				merged[i].content = bound
			}
			continue
		}
		if slices.ContainsFunc(merged[i+1:], func(q place) bool { return q.kept && spec.Below(q.path, p.path) }) {
			merged[i].content, merged[i].readOnly, merged[i].options = private, true, almostEmpty
		}
	}
	var all []place
	var above []under
	for _, p := range merged {
		for len(above) > 0 && !spec.Below(p.path, above[len(above)-1].path) {
			above = above[:len(above)-1]
		}
		var up under
		if len(above) > 0 {
			up = above[len(above)-1]
		}
		covered := up.content == private || up.content == devices
		switch {
		case up.content == hidden:
			continue
		case covered && (p.content == hidden || p.by == "protect_system"):
			continue // there is nothing
		case p.by == "workdir" && !covered && !up.readOnly && !p.readOnly:
			p.content, p.writable = own, false // it is there, and writable
			continue
		}
		// Of no switch's list, a place that only says what may be executed is as writable as what is above it.
		if p.content == own && !p.readOnly && !p.writable {
			p.readOnly = up.readOnly
		}
		if !p.noExec && !p.exec {
			p.noExec = up.noExec
		}
		all = append(all, p)
		above = append(above, under{path: p.path, content: p.content, readOnly: p.readOnly, noExec: p.noExec})
	}
	return all
}

// merge adds to p what another place at the same path asks for.
func merge(p *place, q place) {
	p.readOnly = p.readOnly || q.readOnly
	p.writable = (p.writable || q.writable) && !p.readOnly
	p.noExec = p.noExec || q.noExec
	p.exec = (p.exec || q.exec) && !p.noExec
	if q.content == bound && p.content == hidden {
		p.source, p.single = q.source, q.single
	}
	p.kept = p.kept || q.kept
	p.named = p.named || q.named
	p.optional = p.optional && q.optional
	if p.content == private && q.by == "temporary_file_system" {
		p.options += "," + q.options // of an option that comes twice the last one holds
	}
	if p.by == "workdir" {
		p.by = q.by
	}
}

// comparePaths orders paths so that all that is below one comes right behind it.
func comparePaths(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}
