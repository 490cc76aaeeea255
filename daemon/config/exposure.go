package config

import (
	"slices"

	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/spec"
)

// Exposure is how much a sandbox leaves open, in the manner of systemd-analyze(1) security: of each row the weight that
// systemd gives it, and how much of it is open.
type Exposure struct {
	// Score is from 0, nothing is open, to 10, everything is.
	Score float64
	Rows  []ExposureRow
}

// ExposureRow is one thing that may be open.
type ExposureRow struct {
	// Name is the switch, or user.
	Name string
	// About says what is open or closed.
	About string
	// Exposure is its part of the score; 0: it is closed.
	Exposure float64
}

// Word is what systemd-analyze calls a score.
func (e Exposure) Word() string {
	for _, one := range []struct {
		from float64
		word string
	}{{9.5, "DANGEROUS"}, {9, "UNSAFE"}, {7, "EXPOSED"}, {4.5, "MEDIUM"}, {1, "OK"}, {0.1, "SAFE"}} {
		if e.Score >= one.from {
			return one.word
		}
	}
	return "PERFECT"
}

// ExposureOf returns the exposure of jobs with s, which run as root or not. Rows are in the order of the manual.
func ExposureOf(s spec.Sandbox, root bool) Exposure {
	type row struct {
		name           string
		weight, open   float64 // open is from 0 to 1
		closed, opened string
	}
	bit := func(on bool) float64 {
		if on {
			return 0
		}
		return 1
	}
	word := func(s string, words ...string) float64 {
		if i := slices.Index(words, s); i >= 0 {
			return float64(len(words)-1-i) / float64(len(words)-1)
		}
		return 0
	}
	bounding := spec.AllCapabilities()
	if s.CapabilityBoundingSet != nil {
		bounding = *s.CapabilityBoundingSet
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return bounding&spec.Capability(n) != 0 })
	}
	device, clock, modules, logs := s.PrivateDevices, s.ProtectClock, s.ProtectKernelModules, s.ProtectKernelLogs
	rows := []row{
		{"user", 2000, bit(!root), "It runs as a user who is not root", "It runs as root"},
		{"no_new_privileges", 1000, bit(s.NoNewPrivileges), "It can gain no privileges by executing programs", "It can gain privileges by executing programs"},
		{"private_users", 1000, bit(s.PrivateUsers), "It has users of its own", "It has the machine's users"},
		{"ambient_capabilities", 500, bit(s.AmbientCapabilities == 0), "It has no capabilities that its user has not", "It has capabilities though it is not root"},
		{"umask", 100, bit(s.UMask != nil && *s.UMask&0o77 == 0o77), "Others cannot read what it writes", "Others can read what it writes"},
		{"private_tmp", 1000, bit(s.PrivateTmp), "It has temporary files of its own", "It shares temporary files with others"},
		{"private_devices", 1000, bit(device), "It sees no hardware", "It may see hardware"},
		{"protect_system", 1000, word(s.ProtectSystem, "", "true", "full", "strict"), "It cannot write to the system", "It may write to parts of the system"},
		{"protect_home", 1000, word(s.ProtectHome, "", "read-only", "tmpfs", "true"), "It sees no homes", "It may see homes"},
		{"private_ipc", 1000, bit(s.PrivateIPC), "It has IPC of its own", "It shares IPC with others"},
		{"private_network", 2500, bit(s.PrivateNetwork), "It has no network", "It has the machine's network"},
		{"private_pids", 1000, bit(s.PrivatePIDs), "It sees its own processes alone", "It may see others' processes"},
		{"protect_proc", 1000, bit(s.ProtectProc != "" || s.PrivatePIDs), "/proc shows no processes of others", "/proc shows processes of others"},
		{"proc_subset", 10, bit(s.ProcSubset != ""), "/proc has processes alone", "/proc tells of the machine"},
		{"protect_hostname", 50, bit(s.ProtectHostname), "It cannot change the host name", "It may change the host name"},
		{"protect_clock", 1000, bit(clock), "It cannot set the clock", "It may set the clock"},
		{"protect_kernel_tunables", 1000, bit(s.ProtectKernelTunables), "It cannot change the kernel's settings", "It may change the kernel's settings"},
		{"protect_kernel_modules", 1000, bit(modules), "It cannot load or see modules", "It may load or see modules"},
		{"protect_kernel_logs", 1000, bit(logs), "It cannot see the kernel's log", "It may see the kernel's log"},
		{"protect_control_groups", 1000, bit(s.ProtectControlGroups), "It cannot change control groups", "It may change control groups"},
		{"capability_bounding_set", 1500, bit(!has("CAP_SYS_ADMIN")), "CAP_SYS_ADMIN cannot be had", "CAP_SYS_ADMIN can be had"},
		{"capability_bounding_set", 1500, bit(!has("CAP_SYS_PTRACE")), "CAP_SYS_PTRACE cannot be had", "CAP_SYS_PTRACE can be had"},
		{"capability_bounding_set", 1500, bit(!has("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")), "It cannot become another user", "Root can become another user"},
		{"capability_bounding_set", 1000, bit(!has("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_CHOWN", "CAP_FSETID", "CAP_SETFCAP")), "Permissions of files hold for it", "Permissions of files do not hold for root"},
		{"capability_bounding_set", 1000, bit(!has("CAP_NET_ADMIN")), "It cannot configure networks", "Root can configure networks"},
		{"capability_bounding_set", 1000, bit(!has("CAP_SYS_RAWIO") || device), "No raw I/O", "Root can do raw I/O"},
		{"capability_bounding_set", 1000, bit(!has("CAP_SYS_MODULE") || modules), "CAP_SYS_MODULE cannot be had", "CAP_SYS_MODULE can be had"},
		{"capability_bounding_set", 1000, bit(!has("CAP_SYS_TIME") || clock), "CAP_SYS_TIME cannot be had", "CAP_SYS_TIME can be had"},
		{"capability_bounding_set", 1000, bit(!has("CAP_SYSLOG") || logs), "CAP_SYSLOG cannot be had", "CAP_SYSLOG can be had"},
		{"capability_bounding_set", 500, bit(!has("CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW")), "No raw or privileged sockets", "Root can have raw and privileged sockets"},
		{"capability_bounding_set", 500, bit(!has("CAP_KILL")), "It cannot signal others' processes", "Root can signal others' processes"},
		{"capability_bounding_set", 500, bit(!has("CAP_BPF", "CAP_PERFMON")), "No BPF and tracing", "Root can use BPF and tracing"},
		{"capability_bounding_set", 100, bit(!has("CAP_MKNOD") || device), "It cannot make devices", "Root can make devices"},
		{"restrict_address_families", 1500, bit(len(s.RestrictAddressFamilies) > 0), "Its sockets are of some families alone", "Its sockets may be of any family"},
		{"restrict_namespaces", 1500, bit(len(s.RestrictNamespaces) > 0), "It cannot make or enter namespaces, or some alone", "It may make namespaces"},
		{"restrict_realtime", 500, bit(s.RestrictRealtime), "It cannot have real-time scheduling", "It may have real-time scheduling"},
		{"restrict_suid_sgid", 1000, bit(s.RestrictSUIDSGID), "It cannot make set-user-ID files", "It may make set-user-ID files"},
		{"lock_personality", 100, bit(s.LockPersonality), "It cannot change its personality", "It may change its personality"},
		{"memory_deny_write_execute", 100, bit(s.MemoryDenyWriteExecute), "It cannot make memory executable that it can write to", "It may make memory executable that it can write to"},
		{"system_call_architectures", 1000, bit(len(s.SystemCallArchitectures) > 0), "It makes native system calls alone", "It may make system calls of other architectures"},
	}
	for _, group := range []string{"@clock", "@debug", "@module", "@mount", "@raw-io", "@reboot", "@swap", "@privileged", "@resources", "@obsolete", "@cpu-emulation"} {
		rows = append(rows, row{
			"system_call_filter", 1000, bit(seccomp.Refuses(s, group)), "System calls of " + group + " are refused", "System calls of " + group + " are allowed",
		})
	}
	var e Exposure
	var weights, open float64
	for _, r := range rows {
		weights += r.weight
		open += r.weight * r.open
	}
	for _, r := range rows {
		about := r.closed
		if r.open > 0 {
			about = r.opened
		}
		e.Rows = append(e.Rows, ExposureRow{Name: r.name, About: about, Exposure: 10 * r.weight * r.open / weights})
	}
	e.Score = 10 * open / weights
	return e
}
