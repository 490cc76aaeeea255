package spec

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Sandbox is how a job is kept from others and from the machine. The names are those of the directives of systemd.exec(5)
// that mean the same. The zero value confines nothing.
type Sandbox struct {
	// Profile is the profile that the rest began with, and Named are the switches that were then set by name, sorted: what
	// cannot be had of those is an error, what cannot be had of the profile's is done without.
	Profile string   `cbor:"profile,omitempty"`
	Named   []string `cbor:"named,omitempty"`

	// NoNewPrivileges is prctl(2) PR_SET_NO_NEW_PRIVS.
	NoNewPrivileges bool `cbor:"no_new_privileges,omitempty"`

	// PrivateTmp gives the job a /tmp and a /var/tmp of its own, empty and in memory (tmpfs(5)).
	PrivateTmp bool `cbor:"private_tmp,omitempty"`
	// PrivateDevices gives it a /dev with only the pseudo devices.
	PrivateDevices bool `cbor:"private_devices,omitempty"`
	// PrivateNetwork gives it a network of its own, with a loopback device and nothing else (network_namespaces(7)).
	PrivateNetwork bool `cbor:"private_network,omitempty"`
	// PrivateIPC gives it System V IPC, POSIX message queues (ipc_namespaces(7)) and a /dev/shm of its own.
	PrivateIPC bool `cbor:"private_ipc,omitempty"`
	// PrivatePIDs lets it see and signal the processes of its own slot alone (pid_namespaces(7)).
	PrivatePIDs bool `cbor:"private_pids,omitempty"`
	// PrivateUsers leaves root and its own user of all users (user_namespaces(7)), and no capability over the machine.
	PrivateUsers bool `cbor:"private_users,omitempty"`

	// ProtectSystem is "", "true", "full" or "strict"; ProtectHome "", "true", "read-only" or "tmpfs".
	ProtectSystem string `cbor:"protect_system,omitempty"`
	ProtectHome   string `cbor:"protect_home,omitempty"`
	// ProtectProc is hidepid= of proc(5): "", "noaccess", "invisible" or "ptraceable"; ProcSubset "" or "pid".
	ProtectProc string `cbor:"protect_proc,omitempty"`
	ProcSubset  string `cbor:"proc_subset,omitempty"`
	// The rest of Protect… each is a handful of others: see jail.
	ProtectHostname       bool `cbor:"protect_hostname,omitempty"`
	ProtectClock          bool `cbor:"protect_clock,omitempty"`
	ProtectKernelTunables bool `cbor:"protect_kernel_tunables,omitempty"`
	ProtectKernelModules  bool `cbor:"protect_kernel_modules,omitempty"`
	ProtectKernelLogs     bool `cbor:"protect_kernel_logs,omitempty"`
	ProtectControlGroups  bool `cbor:"protect_control_groups,omitempty"`
	// HideRun leaves nothing of /run, where the sockets are that lead to other programs. No directive does this.
	HideRun bool `cbor:"hide_run,omitempty"`

	// HideUsers leaves nothing of /run/user and /run/screen, where the sockets are that lead to the user's own manager, bus and
	// sessions. No directive does this either.
	HideUsers bool `cbor:"hide_users,omitempty"`
	// Hidden are files and folders of the engine's own, absolute and clean, that the job does not see. They may be missing.
	Hidden []string `cbor:"hidden,omitempty"`

	// Lists of paths, absolute and clean. One with a "-" before it may be missing.
	ReadOnlyPaths     []string `cbor:"read_only_paths,omitempty"`
	ReadWritePaths    []string `cbor:"read_write_paths,omitempty"`
	InaccessiblePaths []string `cbor:"inaccessible_paths,omitempty"`
	ExecPaths         []string `cbor:"exec_paths,omitempty"`
	NoExecPaths       []string `cbor:"no_exec_paths,omitempty"`
	// TemporaryFileSystem are folders with an empty file system in memory in their place.
	TemporaryFileSystem []TemporaryFileSystem `cbor:"temporary_file_system,omitempty"`
	// Binds are files and folders that the job sees in another place, too: BindPaths= and BindReadOnlyPaths=.
	Binds []Bind `cbor:"binds,omitempty"`
	// LoadCredential are files that the job gets in a folder of its own, CredentialsDirectory().
	LoadCredential []Credential `cbor:"load_credential,omitempty"`

	// CapabilityBoundingSet are the capabilities that the job can have at most (capabilities(7)), as bits; nil: all.
	// AmbientCapabilities are those that it has though it is not root.
	CapabilityBoundingSet *uint64 `cbor:"capability_bounding_set,omitempty"`
	AmbientCapabilities   uint64  `cbor:"ambient_capabilities,omitempty"`

	// The filters of system calls (seccomp(2)), which package sandbox/jail/seccomp makes. A string of a list has words with
	// blanks between them, as a line of the directive. Lists that are empty restrict nothing.

	// SystemCallFilter has calls and groups ("@mount"). If the first string begins with "~", all of the list is refused and the
	// rest allowed. Otherwise all of the list and @default are allowed and the rest refused, and a string that begins with "~"
	// takes its words away from what the strings before it allowed. A word that is refused may name the error that the call gets
	// ("mount:EPERM", "mount:1", "mount:kill").
	SystemCallFilter []string `cbor:"system_call_filter,omitempty"`
	// SystemCallErrorNumber is the error that calls get which SystemCallFilter refuses, by name or number (errno(3), 1 to 4095).
	// "" or "kill": the process is ended with SIGSYS.
	SystemCallErrorNumber string `cbor:"system_call_error_number,omitempty"`
	// SystemCallArchitectures are "native", "x86-64", "x32", "x86", "arm64", "arm". A process is ended with SIGSYS that makes a
	// call of another one. The machine's own is always allowed. Empty: all of the machine's; the other switches hold for each.
	SystemCallArchitectures []string `cbor:"system_call_architectures,omitempty"`
	// RestrictAddressFamilies are the families that socket(2) may be asked for, as "AF_UNIX", or, if the first string begins
	// with "~", those that it may not. "none": none. Others give EAFNOSUPPORT.
	RestrictAddressFamilies []string `cbor:"restrict_address_families,omitempty"`
	// RestrictNamespaces are the kinds of namespaces (cgroup, ipc, net, mnt, pid, user, uts, time) that may be made and entered,
	// or, if the first string begins with "~", those that may not. "yes": none may; "no": all may. Others give EPERM.
	RestrictNamespaces []string `cbor:"restrict_namespaces,omitempty"`
	// RestrictRealtime refuses the policies of sched(7) but SCHED_OTHER, SCHED_BATCH and SCHED_IDLE.
	RestrictRealtime bool `cbor:"restrict_realtime,omitempty"`
	// RestrictSUIDSGID refuses modes with the set-user-ID or the set-group-ID bit.
	RestrictSUIDSGID bool `cbor:"restrict_suid_sgid,omitempty"`
	// LockPersonality refuses every personality(2) but the one that all programs have, and asking for it.
	LockPersonality bool `cbor:"lock_personality,omitempty"`
	// MemoryDenyWriteExecute refuses memory that is writable and executable, and making memory executable that was not.
	MemoryDenyWriteExecute bool `cbor:"memory_deny_write_execute,omitempty"`

	// UMask is umask(2); nil: 0022.
	UMask *uint32 `cbor:"umask,omitempty"`

	// DynamicUser says that Run.Credentials.UID is no account: it is called UserName in the job's view of /etc/passwd and
	// /etc/group, and what was left under it in the kernel's keyrings is cleared.
	DynamicUser bool   `cbor:"dynamic_user,omitempty"`
	UserName    string `cbor:"user_name,omitempty"`

	// AsCaller says that a non-root user wrote this for a command of theirs: paths are looked up with the rights of Run.Credentials, and
	// no mount points are made on the machine.
	AsCaller bool `cbor:"as_caller,omitempty"`

	// RuntimeDirectory is where the engine's sockets are, which no job sees that has a view of its own of the machine's files;
	// "": DefaultRuntimeDirectory.
	RuntimeDirectory string `cbor:"runtime_directory,omitempty"`
}

// TemporaryFileSystem is a tmpfs(5) with the mount options of that manual.
type TemporaryFileSystem struct {
	Path     string `cbor:"path"`
	ReadOnly bool   `cbor:"read_only,omitempty"`
	Options  string `cbor:"options,omitempty"`
}

// Bind is a mount(2) with MS_BIND.
type Bind struct {
	Source      string `cbor:"source"`
	Destination string `cbor:"destination"`
	ReadOnly    bool   `cbor:"read_only,omitempty"`
	// Optional says that the source may be missing, Single that mounts below it stay away.
	Optional bool `cbor:"optional,omitempty"`
	Single   bool `cbor:"single,omitempty"`
}

// Credential is a file that is copied for the job.
type Credential struct {
	Name string `cbor:"name"`
	Path string `cbor:"path"`
}

// DefaultRuntimeDirectory is the RuntimeDirectory of root's engine.
const DefaultRuntimeDirectory = "/run/rtask"

// Runtime is the RuntimeDirectory in force.
func (s Sandbox) Runtime() string { return cmp.Or(s.RuntimeDirectory, DefaultRuntimeDirectory) }

// CredentialsDirectory is all there is in the place of RuntimeDirectory, and CREDENTIALS_DIRECTORY of the job's environment.
func (s Sandbox) CredentialsDirectory() string { return s.Runtime() + "/credentials" }

// Confined reports whether s began with a profile that keeps a job from more than it names: default or strict.
func (s Sandbox) Confined() bool { return s.Profile == "default" || s.Profile == "strict" }

// Namespaces reports whether s needs any (namespaces(7)).
func (s Sandbox) Namespaces() bool {
	return s.DynamicUser || s.HideRun || s.HideUsers || len(s.Hidden) > 0 || len(s.NeedNamespaces()) > 0
}

// ForLentUser returns s for a job with a lent user number: files that the job leaves must not give others the rights of the next job with
// that number. It is what DynamicUser= of systemd.exec(5) implies, but for read-only files. Without namespaces it is that
// the job can make no file set-user-ID.
func (s Sandbox) ForLentUser(name string, namespaces bool) Sandbox {
	s.RestrictSUIDSGID = true
	if namespaces {
		s.DynamicUser, s.UserName, s.PrivateTmp, s.PrivateIPC = true, name, true, true
	}
	return s
}

// namespaced is a switch that needs namespaces.
type namespaced struct {
	name string
	on   bool
	off  func()
}

// namespaced are all switches that need namespaces, as they are in s.
func (s *Sandbox) namespaced() []namespaced {
	flag := func(name string, is *bool) namespaced { return namespaced{name, *is, func() { *is = false }} }
	word := func(name string, is *string) namespaced { return namespaced{name, *is != "", func() { *is = "" }} }
	list := func(name string, is *[]string) namespaced {
		return namespaced{name, len(*is) > 0, func() { *is = nil }}
	}
	binds := func(name string, readOnly bool) namespaced {
		is := func(b Bind) bool { return b.ReadOnly == readOnly }
		return namespaced{name, slices.ContainsFunc(s.Binds, is), func() {
			var others []Bind
			for _, b := range s.Binds {
				if !is(b) {
					others = append(others, b)
				}
			}
			s.Binds = others
		}}
	}
	return []namespaced{
		binds("bind_paths", false),
		binds("bind_read_only_paths", true),
		list("exec_paths", &s.ExecPaths),
		list("inaccessible_paths", &s.InaccessiblePaths),
		{"load_credential", len(s.LoadCredential) > 0, func() { s.LoadCredential = nil }},
		list("no_exec_paths", &s.NoExecPaths),
		flag("private_devices", &s.PrivateDevices),
		flag("private_ipc", &s.PrivateIPC),
		flag("private_network", &s.PrivateNetwork),
		flag("private_pids", &s.PrivatePIDs),
		flag("private_tmp", &s.PrivateTmp),
		flag("private_users", &s.PrivateUsers),
		word("proc_subset", &s.ProcSubset),
		flag("protect_control_groups", &s.ProtectControlGroups),
		word("protect_home", &s.ProtectHome),
		flag("protect_hostname", &s.ProtectHostname),
		flag("protect_kernel_logs", &s.ProtectKernelLogs),
		flag("protect_kernel_modules", &s.ProtectKernelModules),
		flag("protect_kernel_tunables", &s.ProtectKernelTunables),
		word("protect_proc", &s.ProtectProc),
		word("protect_system", &s.ProtectSystem),
		list("read_only_paths", &s.ReadOnlyPaths),
		list("read_write_paths", &s.ReadWritePaths),
		{"temporary_file_system", len(s.TemporaryFileSystem) > 0, func() { s.TemporaryFileSystem = nil }},
	}
}

// NeedNamespaces are the switches of s that need namespaces.
func (s Sandbox) NeedNamespaces() []string {
	var names []string
	for _, one := range s.namespaced() {
		if one.on {
			names = append(names, one.name)
		}
	}
	return names
}

// Without is s with those of names taken out that need namespaces.
func (s Sandbox) Without(names ...string) Sandbox {
	for _, one := range s.namespaced() {
		if slices.Contains(names, one.name) {
			one.off()
		}
	}
	return s
}

// WithoutNamespaces is s with all that NeedNamespaces names taken out.
func (s Sandbox) WithoutNamespaces() Sandbox {
	for _, one := range s.namespaced() {
		one.off()
	}
	s.HideRun, s.HideUsers, s.Hidden = false, false, nil
	return s
}

// Sources are the files and folders of the machine that a job with s in dir sees as they were when its slot was made.
func (s Sandbox) Sources(dir string) []string {
	var all []string
	for _, list := range [][]string{s.ReadOnlyPaths, s.ReadWritePaths, s.InaccessiblePaths, s.ExecPaths, s.NoExecPaths} {
		for _, p := range list {
			all = append(all, strings.TrimPrefix(p, "-"))
		}
	}
	for _, b := range s.Binds {
		all = append(all, b.Source)
	}
	for _, c := range s.LoadCredential {
		all = append(all, c.Path)
	}
	// What is above it may be read-only or hidden, and then it is mounted.
	if s.Hides(dir) || s.ProtectSystem != "" || s.ProtectHome != "" || len(s.ReadOnlyPaths) > 0 {
		all = append(all, dir)
	}
	if s.DynamicUser {
		all = append(all, "/etc/passwd", "/etc/group") // copies of which it has
	}
	return all
}

// Hides reports whether what is at p on the machine is not there for the job unless it is brought in again.
func (s Sandbox) Hides(p string) bool {
	var dirs []string
	if s.PrivateTmp {
		dirs = append(dirs, "/tmp", "/var/tmp")
	}
	if s.PrivateIPC {
		dirs = append(dirs, "/dev/shm")
	}
	if s.ProtectHome == "true" || s.ProtectHome == "tmpfs" {
		dirs = append(dirs, "/home", "/root", "/run/user")
	}
	if s.HideRun {
		dirs = append(dirs, "/run")
	}
	if s.HideUsers {
		dirs = append(dirs, "/run/user", "/run/screen")
	}
	dirs = append(dirs, s.Hidden...)
	for _, t := range s.TemporaryFileSystem {
		dirs = append(dirs, t.Path)
	}
	return slices.ContainsFunc(dirs, func(d string) bool { return Below(path.Clean(p), d) && path.Clean(p) != d })
}

// Below reports whether p, which is clean, is dir or below it.
func Below(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}
