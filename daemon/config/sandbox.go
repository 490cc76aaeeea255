package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/spec"
)

// The profiles.
const (
	ProfileOff     = "off"
	ProfileDefault = "default"
	ProfileStrict  = "strict"
)

// sandboxSwitch is one switch of sandbox { … } and all that is known of it outside of the package that throws it. Under the
// profile off a switch does nothing, which is its fallback, if there is a word for it.
type sandboxSwitch struct {
	attribute[spec.Sandbox]
	// usual and strict are its values in the profiles default and strict, as they are written in a file; "": that of off.
	usual, strict string
	// privileged is why only root may give it to a command, after the switch's name and a comma; "": everybody may.
	privileged string
	// openings are what it closes.
	openings []opening
}

// in is the value of a switch in a profile, as it is written in a file; "": there is no word for it.
func (s sandboxSwitch) in(profile string) string {
	value := map[string]string{ProfileDefault: s.usual, ProfileStrict: s.strict}[profile]
	if value == "" {
		value = s.fallback
	}
	return value
}

// opening is one thing that a switch closes, in the manner of systemd-analyze(1) security.
type opening struct {
	// weight is what systemd gives it.
	weight float64
	// closed and opened say what is so.
	closed, opened string
	// open is how much of it is open under a sandbox, from 0 to 1.
	open func(*spec.Sandbox) float64
}

// sandboxSwitches are all switches, in the order of the manual. See systemd.exec(5).
func sandboxSwitches() []sandboxSwitch {
	return slices.Concat(profileSwitch(), userSwitches(), fileSwitches(), processSwitches(), callSwitches())
}

type sandbox = spec.Sandbox

func profileSwitch() []sandboxSwitch {
	return []sandboxSwitch{{attribute: attribute[sandbox]{
		name: "profile", example: `"strict"`, directive: "profile", fallback: `"default"`,
		doc: "What all other switches begin as, wherever it stands. In a task it sets aside what `defaults` say of the sandbox.\n\n" +
			".Bl -tag -width Ds\n" +
			".It Ql off\nNothing, as in a scope that systemd-run(1) starts.\n" +
			".It Ql default\nFor commands that build, deploy and maintain, root's too: `systemctl restart` and `apt-get install` work.\n" +
			".It Ql strict\nFor programs that are not trusted, or that read what strangers sent.\n" +
			".El",
		kind: kind[sandbox]{word: "string", values: []string{ProfileOff, ProfileDefault, ProfileStrict}, decode: (*decoder).profile},
	}}}
}

// userSwitches are about users and privileges.
func userSwitches() []sandboxSwitch {
	const bounding = "capability_bounding_set"
	return []sandboxSwitch{
		toggle("no_new_privileges", "NoNewPrivileges", func(s *sandbox) *bool { return &s.NoNewPrivileges }, "true", "true",
			opening{1000, "It can gain no privileges by executing programs", "It can gain privileges by executing programs", nil},
			"Whether it can gain no privileges by executing a program. For a non-root user, every filter of system calls "+
				"implies it, as with systemd."),
		toggle("private_users", "PrivateUsers", func(s *sandbox) *bool { return &s.PrivateUsers }, "", "true",
			opening{1000, "It has users of its own", "It has the machine's users", nil},
			"Whether all users but root and its own are nobody to it, and it has no capability over the machine."),
		{
			attribute: attribute[sandbox]{
				name: bounding, example: `["CAP_NET_BIND_SERVICE"]`, directive: "CapabilityBoundingSet",
				doc: "The capabilities that it can have at most. An empty list is none, and with `~` they are all but these.",
				kind: texts(func(d *decoder, v value, s *sandbox) {
					if set, ok := d.capabilities(v); ok {
						s.CapabilityBoundingSet = &set
					}
				}),
			},
			usual: `["~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_AUDIT_CONTROL ` +
				`CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF ` +
				`CAP_CHECKPOINT_RESTORE"]`,
			strict: `[]`,
			openings: []opening{
				{1500, "CAP_SYS_ADMIN cannot be had", "CAP_SYS_ADMIN can be had", has("CAP_SYS_ADMIN")},
				{1500, "CAP_SYS_PTRACE cannot be had", "CAP_SYS_PTRACE can be had", has("CAP_SYS_PTRACE")},
				{1500, "It cannot become another user", "Root can become another user", has("CAP_SETUID CAP_SETGID CAP_SETPCAP")},
				{
					1000, "Permissions of files hold for it", "Permissions of files do not hold for root",
					has("CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_CHOWN CAP_FSETID CAP_SETFCAP"),
				},
				{1000, "It cannot configure networks", "Root can configure networks", has("CAP_NET_ADMIN")},
				{1000, "No raw I/O", "Root can do raw I/O", hasUnless("CAP_SYS_RAWIO", func(s *sandbox) bool { return s.PrivateDevices })},
				{
					1000, "CAP_SYS_MODULE cannot be had", "CAP_SYS_MODULE can be had",
					hasUnless("CAP_SYS_MODULE", func(s *sandbox) bool { return s.ProtectKernelModules }),
				},
				{1000, "CAP_SYS_TIME cannot be had", "CAP_SYS_TIME can be had", hasUnless("CAP_SYS_TIME", func(s *sandbox) bool { return s.ProtectClock })},
				{1000, "CAP_SYSLOG cannot be had", "CAP_SYSLOG can be had", hasUnless("CAP_SYSLOG", func(s *sandbox) bool { return s.ProtectKernelLogs })},
				{500, "No raw or privileged sockets", "Root can have raw and privileged sockets", has("CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW")},
				{500, "It cannot signal others' processes", "Root can signal others' processes", has("CAP_KILL")},
				{500, "No BPF and tracing", "Root can use BPF and tracing", has("CAP_BPF CAP_PERFMON")},
				{100, "It cannot make devices", "Root can make devices", hasUnless("CAP_MKNOD", func(s *sandbox) bool { return s.PrivateDevices })},
			},
		},
		{
			attribute: attribute[sandbox]{
				name: "ambient_capabilities", example: `["CAP_NET_BIND_SERVICE"]`, directive: "AmbientCapabilities",
				doc: "The capabilities that it has though it is not root.",
				kind: texts(func(d *decoder, v value, s *sandbox) {
					if set, ok := d.capabilities(v); ok {
						s.AmbientCapabilities = set
					}
				}),
			},
			privileged: "which are privileges",
			openings: []opening{{
				500, "It has no capabilities that its user has not", "It has capabilities though it is not root",
				unless(func(s *sandbox) bool { return s.AmbientCapabilities == 0 }),
			}},
		},
		{
			attribute: attribute[sandbox]{
				name: "umask", example: `"0022"`, directive: "UMask",
				doc:  "What the files that it makes may not be, in octal.",
				kind: text(func(d *decoder, v value, s *sandbox) { d.umask(v, &s.UMask) }),
			},
			strict: `"0077"`,
			openings: []opening{{
				100, "Others cannot read what it writes", "Others can read what it writes",
				unless(func(s *sandbox) bool { return s.UMask != nil && *s.UMask&0o77 == 0o77 }),
			}},
		},
	}
}

// fileSwitches are about files.
func fileSwitches() []sandboxSwitch {
	const shows = "which shows files whatever the folders above them allow"
	return []sandboxSwitch{
		toggle("private_tmp", "PrivateTmp", func(s *sandbox) *bool { return &s.PrivateTmp }, "true", "true",
			opening{1000, "It has temporary files of its own", "It shares temporary files with others", nil},
			"A `/tmp` and a `/var/tmp` of its own, empty and in memory. Each holds at most a tenth of the machine's memory, as does "+
				"`/dev/shm` of `private_ipc`. `temporary_file_system` changes that: `[\"/tmp:size=2G\"]`."),
		toggle("private_devices", "PrivateDevices", func(s *sandbox) *bool { return &s.PrivateDevices }, "", "true",
			opening{1000, "It sees no hardware", "It may see hardware", nil},
			"A `/dev` with only the pseudo devices, no CAP_MKNOD, CAP_SYS_RAWIO and @raw-io, and, if the daemon is root, no "+
				"other devices elsewhere."),
		level("protect_system", "ProtectSystem", func(s *sandbox) *string { return &s.ProtectSystem }, []string{"false", "true", "full", "strict"}, "", "strict",
			opening{
				1000, "It cannot write to the system", "It may write to parts of the system",
				rank(func(s *sandbox) string { return s.ProtectSystem }, "", "true", "full", "strict"),
			},
			"What of the system it cannot write to: `true` is `/usr` and the boot loader's folders; `\"full\"` also `/etc`; "+
				"`\"strict\"` all but `/dev`, `/proc`, `/sys` and what `protect_home` is about."),
		level("protect_home", "ProtectHome", func(s *sandbox) *string { return &s.ProtectHome }, []string{"false", "true", "read-only", "tmpfs"}, "", "true",
			opening{
				1000, "It sees no homes", "It may see homes",
				rank(func(s *sandbox) string { return s.ProtectHome }, "", "read-only", "tmpfs", "true"),
			},
			"What becomes of `/home`, `/root` and `/run/user`: `true` hides them, `\"read-only\"` and `\"tmpfs\"` are what they say."),
		paths("read_only_paths", "ReadOnlyPaths", func(s *sandbox) *[]string { return &s.ReadOnlyPaths },
			"What it cannot write to. In this list and the next two, a deeper path wins over one above it, except "+
				"below an inaccessible path."),
		paths("read_write_paths", "ReadWritePaths", func(s *sandbox) *[]string { return &s.ReadWritePaths },
			"What it can write to all the same."),
		paths("inaccessible_paths", "InaccessiblePaths", func(s *sandbox) *[]string { return &s.InaccessiblePaths }, "What it cannot see."),
		paths("exec_paths", "ExecPaths", func(s *sandbox) *[]string { return &s.ExecPaths }, "What it can execute programs of all the same."),
		paths("no_exec_paths", "NoExecPaths", func(s *sandbox) *[]string { return &s.NoExecPaths }, "What it cannot execute programs of."),
		{attribute: attribute[sandbox]{
			name: "temporary_file_system", example: `["/var/lib:ro"]`, directive: "TemporaryFileSystem",
			otherwise: "size=10%, and as many inodes as that has pages",
			doc: "Folders that are empty and in memory, `PATH[:OPTION,...]`, with `ro`, `size=`, `nr_inodes=`, `mode=`, `uid=` and `gid=`. " +
				"A size is a number of bytes, with K, M or G, or a percentage of the machine's memory.",
			kind: texts(func(d *decoder, v value, s *sandbox) { d.temporary(v, &s.TemporaryFileSystem) }),
		}},
		{
			attribute: attribute[sandbox]{
				name: "bind_paths", example: `["/srv/data:/data"]`, directive: "BindPaths",
				doc: "Files and folders that it has in another place, too, `SOURCE[:DESTINATION[:rbind|norbind]]`.\n\nThis " +
					"applies to the paths of all switches, and to the other files that a task names: rtask follows a symbolic link " +
					"that a user owns only if the same user owns what it leads to. It follows every link that root owns. Links are " +
					"followed when the slot is made; one that appears after that is an error. If a mount point is missing, rtask creates " +
					"it on the machine for a task, as systemd does, and root owns it. For the commands of a non-root user it looks up " +
					"all paths with that user's rights, and creates no mount point.",
				kind: texts(func(d *decoder, v value, s *sandbox) { d.binds(v, &s.Binds, false) }),
			},
			privileged: shows,
		},
		{
			attribute: attribute[sandbox]{
				name: "bind_read_only_paths", example: `["/srv/data:/data"]`, directive: "BindReadOnlyPaths",
				doc:  "The same, and it cannot write to them there.",
				kind: texts(func(d *decoder, v value, s *sandbox) { d.binds(v, &s.Binds, true) }),
			},
			privileged: shows,
		},
		{
			attribute: attribute[sandbox]{
				name: "load_credential", example: `["token:/etc/rtask/token"]`, directive: "LoadCredential",
				doc: "Files of which it gets copies that only it can read, in the folder `CREDENTIALS_DIRECTORY`, `NAME[:PATH]`. " +
					"Without a path it is `/etc/credstore/NAME`.",
				kind: texts(func(d *decoder, v value, s *sandbox) { d.credentials(v, &s.LoadCredential) }),
			},
			privileged: "which reads files as root",
		},
	}
}

// processSwitches are about processes, the network and the kernel.
func processSwitches() []sandboxSwitch {
	return []sandboxSwitch{
		toggle("private_ipc", "PrivateIPC", func(s *sandbox) *bool { return &s.PrivateIPC }, "true", "true",
			opening{1000, "It has IPC of its own", "It shares IPC with others", nil},
			"System V IPC, POSIX message queues and a `/dev/shm` of its own."),
		toggle("private_network", "PrivateNetwork", func(s *sandbox) *bool { return &s.PrivateNetwork }, "", "true",
			opening{2500, "It has no network", "It has the machine's network", nil},
			"A network of its own with only a loopback device."),
		toggle("private_pids", "PrivatePIDs", func(s *sandbox) *bool { return &s.PrivatePIDs }, "true", "true",
			opening{1000, "It sees only its own processes", "It may see others' processes", nil},
			"Whether it sees and signals only its own processes. Unlike with systemd, its main process is not the first of them, so signals "+
				"and orphans work as without this switch."),
		level("protect_proc", "ProtectProc", func(s *sandbox) *string { return &s.ProtectProc }, []string{"default", "noaccess", "invisible", "ptraceable"}, "", "invisible",
			opening{
				1000, "/proc shows no processes of others", "/proc shows processes of others",
				unless(func(s *sandbox) bool { return s.ProtectProc != "" || s.PrivatePIDs }),
			},
			"Which processes `/proc` hides."),
		level("proc_subset", "ProcSubset", func(s *sandbox) *string { return &s.ProcSubset }, []string{"all", "pid"}, "", "pid",
			opening{10, "/proc has processes alone", "/proc tells of the machine", unless(func(s *sandbox) bool { return s.ProcSubset != "" })},
			"What `/proc` has."),
		toggle("protect_hostname", "ProtectHostname", func(s *sandbox) *bool { return &s.ProtectHostname }, "true", "true",
			opening{50, "It cannot change the host name", "It may change the host name", nil},
			"Whether it cannot change the host name."),
		toggle("protect_clock", "ProtectClock", func(s *sandbox) *bool { return &s.ProtectClock }, "true", "true",
			opening{1000, "It cannot set the clock", "It may set the clock", nil},
			"Whether it cannot set the clock."),
		toggle("protect_kernel_tunables", "ProtectKernelTunables", func(s *sandbox) *bool { return &s.ProtectKernelTunables }, "true", "true",
			opening{1000, "It cannot change the kernel's settings", "It may change the kernel's settings", nil},
			"Whether it cannot write to `/proc/sys`, `/sys` and the like."),
		toggle("protect_kernel_modules", "ProtectKernelModules", func(s *sandbox) *bool { return &s.ProtectKernelModules }, "", "true",
			opening{1000, "It cannot load or see modules", "It may load or see modules", nil},
			"Whether it cannot load modules, nor see them."),
		toggle("protect_kernel_logs", "ProtectKernelLogs", func(s *sandbox) *bool { return &s.ProtectKernelLogs }, "true", "true",
			opening{1000, "It cannot see the kernel's log", "It may see the kernel's log", nil},
			"Whether it cannot read or write the kernel's log."),
		toggle("protect_control_groups", "ProtectControlGroups", func(s *sandbox) *bool { return &s.ProtectControlGroups }, "true", "true",
			opening{1000, "It cannot change control groups", "It may change control groups", nil},
			"Whether it cannot write to `/sys/fs/cgroup`."),
	}
}

// callSwitches are about system calls.
func callSwitches() []sandboxSwitch {
	return []sandboxSwitch{
		filter("restrict_address_families", "RestrictAddressFamilies", `["AF_UNIX AF_INET AF_INET6"]`,
			func(s *sandbox) *[]string { return &s.RestrictAddressFamilies },
			`["AF_INET AF_INET6 AF_NETLINK AF_UNIX"]`, `["AF_INET AF_INET6 AF_UNIX"]`,
			"The families that its sockets can be of; with `~` all but these. `[\"none\"]` is none.",
			opening{1500, "Its sockets are of some families alone", "Its sockets may be of any family", nil}),
		{
			attribute: attribute[sandbox]{
				name: "restrict_namespaces", example: "true", directive: "RestrictNamespaces", fallback: "false",
				doc: "Namespaces the job may use: `true` (none), `false` (all) or a list; `~` inverts the list.",
				kind: kind[sandbox]{word: "boolean | list", several: true, decode: func(d *decoder, v value, s *sandbox) {
					d.truthOrLines(v, &s.RestrictNamespaces)
					d.checkFilters(v, "restrict_namespaces", *s)
				}},
			},
			usual: "true", strict: "true",
			openings: []opening{{
				1500, "It cannot make or enter namespaces, or some alone", "It may make namespaces",
				unless(func(s *sandbox) bool { return len(s.RestrictNamespaces) > 0 }),
			}},
		},
		toggle("restrict_realtime", "RestrictRealtime", func(s *sandbox) *bool { return &s.RestrictRealtime }, "true", "true",
			opening{500, "It cannot have real-time scheduling", "It may have real-time scheduling", nil},
			"Whether it cannot have real-time scheduling."),
		toggle("restrict_suid_sgid", "RestrictSUIDSGID", func(s *sandbox) *bool { return &s.RestrictSUIDSGID }, "", "true",
			opening{1000, "It cannot make set-user-ID files", "It may make set-user-ID files", nil},
			"Whether it cannot make files set-user-ID or set-group-ID."),
		toggle("lock_personality", "LockPersonality", func(s *sandbox) *bool { return &s.LockPersonality }, "true", "true",
			opening{100, "It cannot change its personality", "It may change its personality", nil},
			"Whether it cannot have another personality(2)."),
		toggle("memory_deny_write_execute", "MemoryDenyWriteExecute", func(s *sandbox) *bool { return &s.MemoryDenyWriteExecute }, "", "true",
			opening{100, "It cannot make memory executable that it can write to", "It may make memory executable that it can write to", nil},
			"Whether no memory can be both writable and executable."),
		filter("system_call_architectures", "SystemCallArchitectures", `["native"]`,
			func(s *sandbox) *[]string { return &s.SystemCallArchitectures }, `["native"]`, `["native"]`,
			"The architectures that its system calls can be of.",
			opening{1000, "It makes native system calls alone", "It may make system calls of other architectures", nil}),
		filter("system_call_filter", "SystemCallFilter", `["@system-service", "~@privileged"]`,
			func(s *sandbox) *[]string { return &s.SystemCallFilter },
			`["~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap bpf io_uring_enter io_uring_register io_uring_setup `+
				`perf_event_open userfaultfd"]`, `["@system-service", "~@privileged @keyring userfaultfd"]`,
			"The system calls that it can make, by their names and systemd's groups; with `~` all but these.",
			refusals("@clock", "@debug", "@module", "@mount", "@raw-io", "@reboot", "@swap", "@privileged", "@resources", "@obsolete", "@cpu-emulation")...),
		{
			attribute: attribute[sandbox]{
				name: "system_call_error_number", example: `"EPERM"`, directive: "SystemCallErrorNumber",
				doc: "The error that other system calls get; `\"kill\"`, which holds if nothing is said under `off`: they end the process.",
				kind: text(func(d *decoder, v value, s *sandbox) {
					if text, ok := d.string(v, false); ok {
						s.SystemCallErrorNumber = text
						d.checkFilters(v, "system_call_error_number", *s)
					}
				}),
			},
			usual: `"EPERM"`, strict: `"EPERM"`,
		},
	}
}

// toggle is a switch that is true or false, and false under the profile off.
func toggle(name, directive string, field func(*sandbox) *bool, usual, strict string, closes opening, doc string) sandboxSwitch {
	closes.open = unless(func(s *sandbox) bool { return *field(s) })
	return sandboxSwitch{
		attribute: attribute[sandbox]{
			name: name, example: "true", directive: directive, fallback: "false", doc: doc,
			kind: kind[sandbox]{word: "boolean", decode: func(d *decoder, v value, s *sandbox) { d.boolean(v, field(s)) }},
		},
		usual: usual, strict: strict, openings: []opening{closes},
	}
}

// level is a switch that is one of words, of which the first does nothing and is "" in the field.
func level(name, directive string, field func(*sandbox) *string, words []string, usual, strict string, closes opening, doc string) sandboxSwitch {
	quoted := func(word string) string {
		if word == "" {
			return ""
		}
		return strconv.Quote(word)
	}
	return sandboxSwitch{
		attribute: attribute[sandbox]{
			name: name, example: strconv.Quote(words[len(words)-1]), directive: directive, fallback: quoted(words[0]), doc: doc,
			kind: kind[sandbox]{word: "string", values: words, decode: func(d *decoder, v value, s *sandbox) { d.level(v, field(s), words) }},
		},
		usual: quoted(usual), strict: quoted(strict), openings: []opening{closes},
	}
}

// paths is a switch that is a list of paths. systemd's "+" is no use without RootDirectory=.
func paths(name, directive string, field func(*sandbox) *[]string, doc string) sandboxSwitch {
	return sandboxSwitch{attribute: attribute[sandbox]{
		name: name, example: `["/srv/data"]`, directive: directive, doc: doc,
		kind: texts(func(d *decoder, v value, s *sandbox) { d.paths(v, field(s)) }),
	}}
}

// filter is a switch that is a list of lines of the directive.
func filter(name, directive, example string, field func(*sandbox) *[]string, usual, strict, doc string, closes ...opening) sandboxSwitch {
	for i := range closes {
		if closes[i].open == nil {
			closes[i].open = unless(func(s *sandbox) bool { return len(*field(s)) > 0 })
		}
	}
	return sandboxSwitch{
		attribute: attribute[sandbox]{
			name: name, example: example, directive: directive, doc: doc,
			kind: texts(func(d *decoder, v value, s *sandbox) {
				if _, texts, ok := d.texts(v); ok {
					*field(s) = texts
					d.checkFilters(v, name, *s)
				}
			}),
		},
		usual: usual, strict: strict, openings: closes,
	}
}

// unless is open unless it is closed.
func unless(closed func(*sandbox) bool) func(*sandbox) float64 {
	return func(s *sandbox) float64 {
		if closed(s) {
			return 0
		}
		return 1
	}
}

// rank is how far a word is from the last of words.
func rank(field func(*sandbox) string, words ...string) func(*sandbox) float64 {
	return func(s *sandbox) float64 {
		return float64(len(words)-1-slices.Index(words, field(s))) / float64(len(words)-1)
	}
}

// has is open if one of some capabilities can be had.
func has(names string) func(*sandbox) float64 {
	return hasUnless(names, func(*sandbox) bool { return false })
}

// hasUnless is has, unless another switch takes the capability away.
func hasUnless(names string, closed func(*sandbox) bool) func(*sandbox) float64 {
	return unless(func(s *sandbox) bool {
		return closed(s) || s.CapabilityBoundingSet != nil && !slices.ContainsFunc(strings.Fields(names), func(name string) bool {
			return *s.CapabilityBoundingSet&spec.Capability(name) != 0
		})
	})
}

// refusals are openings for groups of system calls that a filter may refuse.
func refusals(groups ...string) []opening {
	var all []opening
	for _, group := range groups {
		all = append(all, opening{
			1000, "System calls of " + group + " are refused", "System calls of " + group + " are allowed",
			unless(func(s *sandbox) bool { return seccomp.Refuses(*s, group) }),
		})
	}
	return all
}

// sandboxScope is what may stand in sandbox { … }. The profile is decoded first, since it sets all of the rest.
func sandboxScope() scope[sandbox] {
	s := scope[sandbox]{where: inSandbox}
	for _, one := range sandboxSwitches() {
		row := one.attribute
		if row.name != "profile" {
			row.decode = func(d *decoder, v value, s *sandbox) {
				before := len(d.diags)
				one.decode(d, v, s)
				if !d.diags[before:].HasErrors() && !slices.Contains(s.Named, one.name) {
					s.Named = append(slices.Clone(s.Named), one.name) // that of defaults is shared
					slices.Sort(s.Named)
				}
			}
		}
		s.attributes = append(s.attributes, row)
	}
	return s
}

// profile returns what a profile is.
func profile(name string) spec.Sandbox {
	s := spec.Sandbox{Profile: name, HideUsers: name == ProfileDefault, HideRun: name == ProfileStrict}
	if name == ProfileOff {
		return s
	}
	for _, one := range sandboxSwitches()[1:] {
		if text := one.in(name); text != "" {
			set(one.attribute, text, &s)
		}
	}
	return s
}

// CommandSandbox is what a command has of which nothing is said: the profile "off", and no_new_privileges.
func CommandSandbox() spec.Sandbox {
	s := profile(ProfileOff)
	s.NoNewPrivileges = true
	return s
}

// Privileged returns the first of the switches that s names and only root may give to a command, and why; "": there is none.
func Privileged(s spec.Sandbox) (name, why string) {
	for _, one := range sandboxSwitches() {
		if one.privileged != "" && slices.Contains(s.Named, one.name) {
			return one.name, one.privileged
		}
	}
	return "", ""
}
