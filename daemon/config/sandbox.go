package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/spec"
)

// sandboxScope is what may stand in sandbox { … }. See systemd.exec(5). The profile is decoded first, since it sets all of
// the rest.
func sandboxScope() scope[spec.Sandbox] {
	type (
		sandbox = spec.Sandbox
		row     = attribute[sandbox]
	)
	rows := []row{
		{
			name: "profile", example: `"strict"`, directive: "profile",
			doc:    "What the rest begins as: off, default or strict. Default: default.",
			decode: func(d *decoder, v value, s *sandbox) { d.profile(v, s) },
		},
		toggle("no_new_privileges", "NoNewPrivileges", "Whether it can gain no privileges by executing a program.",
			func(s *sandbox) *bool { return &s.NoNewPrivileges }),
		toggle("private_tmp", "PrivateTmp", "A /tmp and a /var/tmp of its own, empty and in memory.", func(s *sandbox) *bool { return &s.PrivateTmp }),
		toggle("private_devices", "PrivateDevices", "A /dev that has the pseudo devices alone.", func(s *sandbox) *bool { return &s.PrivateDevices }),
		toggle("private_network", "PrivateNetwork", "A network of its own that has a loopback device alone.", func(s *sandbox) *bool { return &s.PrivateNetwork }),
		toggle("private_ipc", "PrivateIPC", "System V IPC, POSIX message queues and a /dev/shm of its own.", func(s *sandbox) *bool { return &s.PrivateIPC }),
		toggle("private_pids", "PrivatePIDs", "Whether it sees its own processes alone.", func(s *sandbox) *bool { return &s.PrivatePIDs }),
		toggle("private_users", "PrivateUsers", "Whether all users but root and its own are nobody to it.", func(s *sandbox) *bool { return &s.PrivateUsers }),
		level("protect_system", "ProtectSystem", "What of the system it cannot write to: false, true (/usr, /boot), full (/etc, too) or strict (all).",
			func(s *sandbox) *string { return &s.ProtectSystem }, "false", "false", "true", "full", "strict"),
		level("protect_home", "ProtectHome", "What it cannot do with /home, /root and /run/user: false, true (see them), read-only or tmpfs.",
			func(s *sandbox) *string { return &s.ProtectHome }, "false", "false", "true", "read-only", "tmpfs"),
		level("protect_proc", "ProtectProc", "Which processes /proc hides: default, noaccess, invisible or ptraceable.",
			func(s *sandbox) *string { return &s.ProtectProc }, "default", "default", "noaccess", "invisible", "ptraceable"),
		level("proc_subset", "ProcSubset", "What /proc has: all or pid.", func(s *sandbox) *string { return &s.ProcSubset }, "all", "all", "pid"),
		toggle("protect_hostname", "ProtectHostname", "Whether it cannot change the host name.", func(s *sandbox) *bool { return &s.ProtectHostname }),
		toggle("protect_clock", "ProtectClock", "Whether it cannot set the clock.", func(s *sandbox) *bool { return &s.ProtectClock }),
		toggle("protect_kernel_tunables", "ProtectKernelTunables", "Whether it cannot write to /proc/sys, /sys and the like.",
			func(s *sandbox) *bool { return &s.ProtectKernelTunables }),
		toggle("protect_kernel_modules", "ProtectKernelModules", "Whether it cannot load modules, nor see them.",
			func(s *sandbox) *bool { return &s.ProtectKernelModules }),
		toggle("protect_kernel_logs", "ProtectKernelLogs", "Whether it cannot read or write the kernel's log.", func(s *sandbox) *bool { return &s.ProtectKernelLogs }),
		toggle("protect_control_groups", "ProtectControlGroups", "Whether it cannot write to /sys/fs/cgroup.", func(s *sandbox) *bool { return &s.ProtectControlGroups }),
		paths("read_only_paths", "ReadOnlyPaths", "What it cannot write to.", func(s *sandbox) *[]string { return &s.ReadOnlyPaths }),
		paths("read_write_paths", "ReadWritePaths", "What it can write to all the same.", func(s *sandbox) *[]string { return &s.ReadWritePaths }),
		paths("inaccessible_paths", "InaccessiblePaths", "What it cannot see.", func(s *sandbox) *[]string { return &s.InaccessiblePaths }),
		paths("exec_paths", "ExecPaths", "What it can execute programs of all the same.", func(s *sandbox) *[]string { return &s.ExecPaths }),
		paths("no_exec_paths", "NoExecPaths", "What it cannot execute programs of.", func(s *sandbox) *[]string { return &s.NoExecPaths }),
		{
			name: "temporary_file_system", example: `["/var/lib:ro"]`, directive: "TemporaryFileSystem", several: true,
			doc:    "Folders that are empty and in memory, with the options of tmpfs(5).",
			decode: func(d *decoder, v value, s *sandbox) { d.temporary(v, &s.TemporaryFileSystem) },
		},
		{
			name: "bind_paths", example: `["/srv/data:/data"]`, directive: "BindPaths", several: true,
			doc:    "Files and folders that it has in another place, too.",
			decode: func(d *decoder, v value, s *sandbox) { d.binds(v, &s.Binds, false) },
		},
		{
			name: "bind_read_only_paths", example: `["/srv/data:/data"]`, directive: "BindReadOnlyPaths", several: true,
			doc:    "The same, and it cannot write to them there.",
			decode: func(d *decoder, v value, s *sandbox) { d.binds(v, &s.Binds, true) },
		},
		{
			name: "load_credential", example: `["token:/etc/rtask/token"]`, directive: "LoadCredential", several: true,
			doc:    "Files that it gets copies of in $CREDENTIALS_DIRECTORY, which it alone can read.",
			decode: func(d *decoder, v value, s *sandbox) { d.credentials(v, &s.LoadCredential) },
		},
		{
			name: "capability_bounding_set", example: `["CAP_NET_BIND_SERVICE"]`, directive: "CapabilityBoundingSet", several: true,
			doc: "The capabilities that it can have at most; with ~ all but these.",
			decode: func(d *decoder, v value, s *sandbox) {
				if set, ok := d.capabilities(v); ok {
					s.CapabilityBoundingSet = &set
				}
			},
		},
		{
			name: "ambient_capabilities", example: `["CAP_NET_BIND_SERVICE"]`, directive: "AmbientCapabilities", several: true,
			doc: "The capabilities that it has though it is not root.",
			decode: func(d *decoder, v value, s *sandbox) {
				if set, ok := d.capabilities(v); ok {
					s.AmbientCapabilities = set
				}
			},
		},
		filter("system_call_filter", "SystemCallFilter", `["@system-service", "~@privileged"]`, "The system calls that it can make; with ~ all but these.",
			func(s *sandbox) *[]string { return &s.SystemCallFilter }),
		{
			name: "system_call_error_number", example: `"EPERM"`, directive: "SystemCallErrorNumber",
			doc: `The error that other system calls get; "kill": they end the process.`,
			decode: func(d *decoder, v value, s *sandbox) {
				if text, ok := d.string(v, false); ok {
					s.SystemCallErrorNumber = text
					d.checkFilters(v, "system_call_error_number", *s)
				}
			},
		},
		filter("system_call_architectures", "SystemCallArchitectures", `["native"]`, "The architectures that its system calls can be of.",
			func(s *sandbox) *[]string { return &s.SystemCallArchitectures }),
		filter("restrict_address_families", "RestrictAddressFamilies", `["AF_UNIX AF_INET AF_INET6"]`, "The families that its sockets can be of; with ~ all but these.",
			func(s *sandbox) *[]string { return &s.RestrictAddressFamilies }),
		{
			name: "restrict_namespaces", example: "true", directive: "RestrictNamespaces", several: true,
			doc: "Namespaces the job may use: true (none), false (all) or a list; ~ inverts the list.",
			decode: func(d *decoder, v value, s *sandbox) {
				d.truthOrLines(v, &s.RestrictNamespaces)
				d.checkFilters(v, "restrict_namespaces", *s)
			},
		},
		toggle("restrict_realtime", "RestrictRealtime", "Whether it cannot have real-time scheduling.", func(s *sandbox) *bool { return &s.RestrictRealtime }),
		toggle("restrict_suid_sgid", "RestrictSUIDSGID", "Whether it cannot make files set-user-ID or set-group-ID.", func(s *sandbox) *bool { return &s.RestrictSUIDSGID }),
		toggle("lock_personality", "LockPersonality", "Whether it cannot have another personality(2).", func(s *sandbox) *bool { return &s.LockPersonality }),
		toggle("memory_deny_write_execute", "MemoryDenyWriteExecute", "Whether no memory can be both writable and executable.",
			func(s *sandbox) *bool { return &s.MemoryDenyWriteExecute }),
		{
			name: "umask", example: `"0022"`, directive: "UMask",
			doc:    "What the files that it makes may not be, as umask(2).",
			decode: func(d *decoder, v value, s *sandbox) { d.umask(v, &s.UMask) },
		},
	}
	for i, r := range rows {
		if r.name == "profile" {
			continue
		}
		rows[i].decode = func(d *decoder, v value, s *sandbox) {
			before := len(d.diags)
			r.decode(d, v, s)
			if !d.diags[before:].HasErrors() && !slices.Contains(s.Named, r.name) {
				s.Named = append(slices.Clone(s.Named), r.name) // that of defaults is shared
				slices.Sort(s.Named)
			}
		}
	}
	return scope[sandbox]{where: inSandbox, attributes: rows}
}

// filter is a switch that is a list of lines of the directive.
func filter(name, directive, example, doc string, field func(*spec.Sandbox) *[]string) attribute[spec.Sandbox] {
	return attribute[spec.Sandbox]{
		name: name, example: example, directive: directive, several: true, doc: doc,
		decode: func(d *decoder, v value, s *spec.Sandbox) {
			if _, texts, ok := d.texts(v); ok {
				*field(s) = texts
				d.checkFilters(v, name, *s)
			}
		},
	}
}

// checkFilters reports what is wrong with one of the filters of s.
func (d *decoder) checkFilters(v value, name string, s spec.Sandbox) {
	var wrong *seccomp.Error
	err := seccomp.Check(s)
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		if !errors.As(one, &wrong) || wrong.Switch != name {
			continue
		}
		at := v
		if list, diags := hcl.ExprList(v.expr); !diags.HasErrors() && wrong.Entry >= 0 && wrong.Entry < len(list) {
			at.expr = list[wrong.Entry]
		}
		d.errorf(at.rng(), "", "%s: %s", name, wrong.Text)
	}
}

// truthOrLines sets dst to the lines of a directive that may be true or false, too.
func (d *decoder) truthOrLines(v value, dst *[]string) {
	if _, diags := hcl.ExprList(v.expr); diags.HasErrors() {
		got, kind, ok := d.scalar(v)
		word := ""
		switch {
		case !ok:
			return
		case kind == "true or false":
			word = strconv.FormatBool(got.True())
		case kind == "a string":
			word = truth(got.AsString(), []string{"true", "false"})
		}
		switch word {
		case "true":
			*dst = []string{"yes"}
			return
		case "false":
			*dst = nil
			return
		}
	}
	if _, texts, ok := d.texts(v); ok {
		*dst = texts
	}
}

// toggle is a switch that is true or false.
func toggle(name, directive, doc string, field func(*spec.Sandbox) *bool) attribute[spec.Sandbox] {
	return attribute[spec.Sandbox]{
		name: name, example: "true", directive: directive, doc: doc,
		decode: func(d *decoder, v value, s *spec.Sandbox) { d.boolean(v, field(s)) },
	}
}

// level is a switch that is one of words, of which none does nothing.
func level(name, directive, doc string, field func(*spec.Sandbox) *string, none string, words ...string) attribute[spec.Sandbox] {
	return attribute[spec.Sandbox]{
		name: name, example: strconv.Quote(words[len(words)-1]), directive: directive, doc: doc,
		decode: func(d *decoder, v value, s *spec.Sandbox) {
			var word string
			got, kind, ok := d.scalar(v)
			switch {
			case !ok:
				return
			case kind == "true or false" && slices.Contains(words, "true"):
				word = strconv.FormatBool(got.True())
			case kind == "a string":
				word = truth(got.AsString(), words)
			}
			if !slices.Contains(words, word) {
				d.errorf(v.rng(), v.usage(), "%s must be %s, not %s", v.name, strings.Join(words, " or "), said(got, kind))
				return
			}
			if word == none {
				word = ""
			}
			*field(s) = word
		},
	}
}

// truth turns the words that systemd takes for true and false (systemd.syntax(7)) into these, where words has them.
func truth(s string, words []string) string {
	if slices.Contains(words, "true") && !slices.Contains(words, s) {
		switch strings.ToLower(s) {
		case "yes", "on", "1", "y", "t":
			return "true"
		case "no", "off", "0", "n", "f":
			return "false"
		}
	}
	return s
}

func said(v cty.Value, kind string) string {
	if kind == "a string" {
		return strconv.Quote(v.AsString())
	}
	return kind
}

// boolean is bool, and on a command line the words that systemd takes.
func (d *decoder) boolean(v value, dst *bool) {
	if !v.property {
		d.bool(v, dst)
		return
	}
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	switch word := truth(text, []string{"true", "false"}); word {
	case "true", "false":
		*dst = word == "true"
	default:
		d.errorf(v.rng(), v.usage(), "%s must be true or false, not %q", v.name, text)
	}
}

// profile makes s what the profile is that v names.
func (d *decoder) profile(v value, s *spec.Sandbox) {
	name := ""
	d.choice(v, &name, ProfileOff, ProfileDefault, ProfileStrict)
	if name != "" {
		*s = profile(name)
	}
}

// texts returns the strings of a list, or one string as a list of one.
func (d *decoder) texts(v value) (values []value, texts []string, ok bool) {
	list, diags := hcl.ExprList(v.expr)
	if diags.HasErrors() {
		_, kind, ok := d.scalar(v)
		switch {
		case !ok:
			return nil, nil, false
		case kind != "a string":
			d.wrong(v, "a list of strings", kind)
			return nil, nil, false
		}
		s, ok := d.string(v, false)
		return []value{v}, []string{s}, ok
	}
	ok = true
	for i, expr := range list {
		s, good := d.string(v.element(fmt.Sprintf("%s[%d]", v.name, i), expr), false)
		ok = ok && good
		e := v
		e.expr = expr
		values, texts = append(values, e), append(texts, s)
	}
	return values, texts, ok
}

// paths is a switch that is a list of paths. systemd's "+" is no use without RootDirectory=.
func paths(name, directive, doc string, field func(*spec.Sandbox) *[]string) attribute[spec.Sandbox] {
	return attribute[spec.Sandbox]{
		name: name, example: `["/srv/data"]`, directive: directive, several: true, doc: doc,
		decode: func(d *decoder, v value, s *spec.Sandbox) {
			values, texts, ok := d.texts(v)
			if !ok {
				return
			}
			var list []string
			for i, text := range texts {
				for _, one := range d.split(values[i], text) {
					name, optional := strings.CutPrefix(one, "-")
					clean, ok := d.sandboxPath(values[i], name)
					if !ok {
						return
					}
					if optional {
						clean = "-" + clean
					}
					list = append(list, clean)
				}
			}
			*field(s) = list
		},
	}
}

// split is the words of one -p, and in a file the text itself: paths may have spaces.
func (d *decoder) split(v value, text string) []string {
	if v.property {
		return strings.Fields(text)
	}
	return []string{text}
}

// sandboxPath checks a path of a switch.
func (d *decoder) sandboxPath(v value, s string) (string, bool) {
	switch {
	case !path.IsAbs(s):
		d.errorf(v.rng(), `It must begin with a slash: "/srv/data"`, "%s: %q is not absolute", v.name, s)
	case strings.Contains(s+"/", "/../"):
		d.errorf(v.rng(), fmt.Sprintf("Write it without: %q", path.Clean(s)), `%s: %q has ".." in it`, v.name, s)
	default:
		return path.Clean(s), true
	}
	return "", false
}

// temporary sets dst to what TemporaryFileSystem= says: PATH[:OPTION,…].
func (d *decoder) temporary(v value, dst *[]spec.TemporaryFileSystem) {
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	var list []spec.TemporaryFileSystem
	for i, text := range texts {
		for _, one := range d.split(values[i], text) {
			name, options, _ := strings.Cut(one, ":")
			clean, ok := d.sandboxPath(values[i], name)
			if !ok {
				return
			}
			if clean == "/" {
				d.errorf(values[i].rng(), "", "%s: nothing could be executed if / were empty", v.name)
				return
			}
			t := spec.TemporaryFileSystem{Path: clean}
			var rest []string
			for _, o := range strings.FieldsFunc(options, func(r rune) bool { return r == ',' }) {
				key, val, hasValue := strings.Cut(o, "=")
				switch {
				case o == "ro":
					t.ReadOnly = true
				case o == "rw":
					t.ReadOnly = false
				case hasValue && val != "" && slices.Contains([]string{"size", "nr_inodes", "mode", "uid", "gid"}, key):
					rest = append(rest, o)
				default:
					d.errorf(values[i].rng(), "There are ro, rw, size=, nr_inodes=, mode=, uid= and gid=.", "%s: unknown option %q", v.name, o)
					return
				}
			}
			t.Options = strings.Join(rest, ",")
			list = append(list, t)
		}
	}
	*dst = list
}

// binds sets what BindPaths= and BindReadOnlyPaths= say: [-]SOURCE[:DESTINATION[:rbind|norbind]]. The other kind stays.
func (d *decoder) binds(v value, dst *[]spec.Bind, readOnly bool) {
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*dst), func(b spec.Bind) bool { return b.ReadOnly == readOnly })
	for i, text := range texts {
		for _, one := range d.split(values[i], text) {
			b := spec.Bind{ReadOnly: readOnly}
			one, b.Optional = strings.CutPrefix(one, "-")
			parts := strings.Split(one, ":")
			if len(parts) > 3 {
				d.errorf(values[i].rng(), v.usage(), "%s: %q has too many colons", v.name, one)
				return
			}
			if len(parts) == 3 && parts[2] != "rbind" && parts[2] != "norbind" {
				d.errorf(values[i].rng(), "There are rbind, the default, and norbind.", "%s: unknown option %q", v.name, parts[2])
				return
			}
			b.Single = len(parts) == 3 && parts[2] == "norbind"
			if b.Source, ok = d.sandboxPath(values[i], parts[0]); !ok {
				return
			}
			b.Destination = b.Source
			if len(parts) > 1 && parts[1] != "" {
				if b.Destination, ok = d.sandboxPath(values[i], parts[1]); !ok {
					return
				}
			}
			if b.Destination == "/" {
				d.errorf(values[i].rng(), v.usage(), "%s: nothing can be bound over /", v.name)
				return
			}
			list = append(list, b)
		}
	}
	*dst = list
}

// credentials sets dst to what LoadCredential= says: NAME[:PATH]. Without a path, and with one that is not absolute, it is a
// file of /etc/credstore.
func (d *decoder) credentials(v value, dst *[]spec.Credential) {
	const store = "/etc/credstore"
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	var list []spec.Credential
	for i, text := range texts {
		name, file, _ := strings.Cut(text, ":")
		if file == "" {
			file = name
		}
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			d.errorf(values[i].rng(), v.usage(), "%s: %q cannot be the name of a credential, which is 1 to 255 bytes without a slash", v.name, name)
			return
		}
		if !path.IsAbs(file) {
			file = store + "/" + file
		}
		if file, ok = d.sandboxPath(values[i], file); !ok {
			return
		}
		if slices.ContainsFunc(list, func(c spec.Credential) bool { return c.Name == name }) {
			d.errorf(values[i].rng(), "", "%s names %q a second time", v.name, name)
			return
		}
		list = append(list, spec.Credential{Name: name, Path: file})
	}
	*dst = list
}

// capabilities returns a set of capabilities, each element of a list as a line of CapabilityBoundingSet= has it: names, or
// after "~" those that are taken out of what the lines before say, or of all.
func (d *decoder) capabilities(v value) (uint64, bool) {
	values, texts, ok := d.texts(v)
	if !ok {
		return 0, false
	}
	var set uint64
	for i, text := range texts {
		names, inverted := strings.CutPrefix(text, "~")
		if inverted && i == 0 {
			set = spec.AllCapabilities()
		}
		for _, name := range strings.Fields(names) {
			bit := spec.Capability(name)
			if bit == 0 {
				detail := v.usage()
				if near := nearest(name, spec.CapabilityNames(spec.AllCapabilities())); near != "" {
					detail = fmt.Sprintf("Did you mean %q?", near)
				}
				d.errorf(values[i].rng(), detail, "%s: there is no capability %q", v.name, name)
				return 0, false
			}
			if inverted {
				set &^= bit
			} else {
				set |= bit
			}
		}
	}
	return set, true
}

// umask sets dst to an octal number.
func (d *decoder) umask(v value, dst **uint32) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		d.errorf(v.rng(), v.usage(), "%s must be an octal number up to 0777, not %q", v.name, text)
		return
	}
	mask := uint32(n)
	*dst = &mask
}

// sandboxValues are the switches of s as they would stand in a file. Those that do nothing and have no word for it are
// left out.
func sandboxValues(s spec.Sandbox) map[string]cty.Value {
	all := map[string]cty.Value{
		"profile":         cty.StringVal(s.Profile),
		"protect_system":  word(s.ProtectSystem, "false"),
		"protect_home":    word(s.ProtectHome, "false"),
		"protect_proc":    word(s.ProtectProc, "default"),
		"proc_subset":     word(s.ProcSubset, "all"),
		"read_only_paths": stringList(s.ReadOnlyPaths), "read_write_paths": stringList(s.ReadWritePaths),
		"system_call_filter": stringList(s.SystemCallFilter), "system_call_architectures": stringList(s.SystemCallArchitectures),
		"restrict_address_families": stringList(s.RestrictAddressFamilies),
		"inaccessible_paths":        stringList(s.InaccessiblePaths), "exec_paths": stringList(s.ExecPaths), "no_exec_paths": stringList(s.NoExecPaths),
	}
	if s.UMask != nil {
		all["umask"] = cty.StringVal(fmt.Sprintf("%04o", *s.UMask))
	}
	for name, on := range map[string]bool{
		"no_new_privileges": s.NoNewPrivileges, "private_tmp": s.PrivateTmp, "private_devices": s.PrivateDevices,
		"private_network": s.PrivateNetwork, "private_ipc": s.PrivateIPC, "private_pids": s.PrivatePIDs, "private_users": s.PrivateUsers,
		"protect_hostname": s.ProtectHostname, "protect_clock": s.ProtectClock, "protect_kernel_tunables": s.ProtectKernelTunables,
		"protect_kernel_modules": s.ProtectKernelModules, "protect_kernel_logs": s.ProtectKernelLogs,
		"protect_control_groups": s.ProtectControlGroups, "restrict_realtime": s.RestrictRealtime, "restrict_suid_sgid": s.RestrictSUIDSGID,
		"lock_personality": s.LockPersonality, "memory_deny_write_execute": s.MemoryDenyWriteExecute,
	} {
		all[name] = cty.BoolVal(on)
	}
	switch {
	case slices.Equal(s.RestrictNamespaces, []string{"yes"}):
		all["restrict_namespaces"] = cty.True
	case len(s.RestrictNamespaces) == 0:
		all["restrict_namespaces"] = cty.False
	default:
		all["restrict_namespaces"] = stringList(s.RestrictNamespaces)
	}
	if s.SystemCallErrorNumber != "" {
		all["system_call_error_number"] = cty.StringVal(s.SystemCallErrorNumber)
	}
	var temporary, binds, readOnly, credentials []string
	for _, t := range s.TemporaryFileSystem {
		options := t.Options
		if t.ReadOnly {
			options = strings.TrimSuffix("ro,"+options, ",")
		}
		temporary = append(temporary, strings.TrimSuffix(t.Path+":"+options, ":"))
	}
	for _, b := range s.Binds {
		text := b.Source + ":" + b.Destination
		if b.Single {
			text += ":norbind"
		}
		if b.Optional {
			text = "-" + text
		}
		if b.ReadOnly {
			readOnly = append(readOnly, text)
		} else {
			binds = append(binds, text)
		}
	}
	for _, c := range s.LoadCredential {
		credentials = append(credentials, c.Name+":"+c.Path)
	}
	all["temporary_file_system"], all["load_credential"] = stringList(temporary), stringList(credentials)
	all["bind_paths"], all["bind_read_only_paths"] = stringList(binds), stringList(readOnly)
	if s.CapabilityBoundingSet != nil {
		all["capability_bounding_set"] = capabilityList(*s.CapabilityBoundingSet)
	}
	if s.AmbientCapabilities != 0 {
		all["ambient_capabilities"] = capabilityList(s.AmbientCapabilities)
	}
	for name, v := range all {
		if v.Type().IsTupleType() && v.LengthInt() == 0 && name != "capability_bounding_set" {
			delete(all, name)
		}
	}
	return all
}

func word(s, none string) cty.Value {
	if s == "" {
		s = none
	}
	return cty.StringVal(s)
}

// capabilityList is a set of capabilities in the shorter of its two forms.
func capabilityList(set uint64) cty.Value {
	if missing := spec.AllCapabilities() &^ set; spec.CountCapabilities(missing) < spec.CountCapabilities(set) {
		return stringList([]string{"~" + strings.Join(spec.CapabilityNames(missing), " ")})
	}
	return stringList(spec.CapabilityNames(set))
}
