package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Role is what some clients on other machines may do.
type Role struct {
	// Name is as ValidName has it.
	Name string
	// Subjects and Groups are whose role it is; see Config.RolesOf.
	Subjects, Groups []string
	// Tasks are patterns of the tasks that it is about; see Has.
	Tasks []string
	// Methods are MethodsRead, MethodsRun and names of methods of JobService, as daemon/auth understands them.
	Methods []string
	// Jobs are whose jobs of these tasks it shows.
	Jobs RoleJobs
	// Commands says that it may run commands, as RunAs, which is not root.
	Commands bool
	RunAs    string
	// Pos is where it stands.
	Pos Pos
}

// RoleJobs is whose jobs a role shows.
type RoleJobs string

// The values of RoleJobs.
const (
	// JobsOwn are those that the client started itself, under the same name; the default.
	JobsOwn RoleJobs = "own"
	// JobsAll are all.
	JobsAll RoleJobs = "all"
)

// The groups of methods.
const (
	MethodsRead = "read"
	MethodsRun  = "run"
)

// RoleMethods are the methods that a role can list by their names. Package control's tests hold it against the table of daemon/auth.
func RoleMethods() []string {
	return []string{
		"Start", "Stop", "Status", "StreamLogs", "List", "Wait", "Tasks", "ShowTask", "Info", "SwitchTask", "Drain", "Reload", "ListKeys",
		"RevokeKey", "ListDeliveries", "ReplayDelivery",
	}
}

// Has reports whether a role is about a task. In a pattern, * stands for any text.
func (r *Role) Has(task string) bool {
	return slices.ContainsFunc(r.Tasks, func(pattern string) bool { return matches(pattern, task, 0, "") })
}

// RolesOf returns the roles of a client, in the order of the file. The identity is the URI of its certificate, dn the distinguished
// name in it as RFC 4514 has it, and groups are what it belongs to: "PROVIDER", "PROVIDER:GROUP". Each may be missing.
func (c *Config) RolesOf(identity, dn string, groups []string) []*Role {
	var all []*Role
	for _, r := range c.Roles {
		named := func(pattern string) bool {
			if isURI(pattern) {
				return identity != "" && matches(pattern, identity, 1, "/?#")
			}
			return dn != "" && matches(pattern, dn, 1, `,+=\"`)
		}
		in := func(group string) bool { return slices.Contains(groups, group) }
		if slices.ContainsFunc(r.Subjects, named) || slices.ContainsFunc(r.Groups, in) {
			all = append(all, r)
		}
	}
	return all
}

// isURI tells the pattern of a URI from that of a distinguished name.
func isURI(pattern string) bool { return strings.Contains(pattern, "://") }

// matches reports whether text is what pattern says, in which a * stands for least bytes or more, none of which is one of stop.
func matches(pattern, text string, least int, stop string) bool {
	literal, _, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == text
	}
	if !strings.HasPrefix(text, literal) { // each call of a remote client is held against all roles: most end here
		return false
	}
	pattern, text = pattern[len(literal):], text[len(literal):]
	at := make([]bool, len(text)+1) // up to where in text the pattern so far can have come
	at[0] = true
	for _, c := range []byte(pattern) {
		next := make([]bool, len(text)+1)
		inside := false // a * that began before
		for i := range at {
			switch {
			case c != '*':
				if at[i] && i < len(text) && text[i] == c {
					next[i+1] = true
				}
				continue
			case least == 0:
				inside = inside || at[i]
				next[i] = inside
			default:
				next[i] = inside
				inside = inside || at[i]
			}
			if i < len(text) && strings.IndexByte(stop, text[i]) >= 0 {
				inside = false
			}
		}
		at = next
	}
	return at[len(text)]
}

// roleScope is what may stand in role "NAME" { … }.
func roleScope() scope[Role] {
	return scope[Role]{
		where: inRole,
		attributes: []attribute[Role]{
			{
				name: "subjects", example: `["spiffe://example.org/user/*", "CN=ops,O=Example"]`,
				kind: list(func(r *Role) *[]string { return &r.Subjects }, (*decoder).subject),
				doc: "The clients that have the role, by their certificates: the URI in it, or its distinguished name as RFC 4514 writes it. " +
					"A `*` stands for one part of a name, or some of one: it is no `/` in a URI, and no comma or other special character in " +
					"a distinguished name.",
			},
			{
				name: "groups", example: `["corp:ops", "github"]`,
				kind: list(func(r *Role) *[]string { return &r.Groups }, func(d *decoder, v value, s string) bool {
					d.groups = append(d.groups, mention{v, s})
					return true
				}),
				doc: "The clients that have the role, by where they logged in: `PROVIDER:GROUP` is a group of the provider's, `PROVIDER` " +
					"everyone who logged in there.",
			},
			{
				name: "tasks", example: `["build", "deploy-*"]`,
				kind: list(func(r *Role) *[]string { return &r.Tasks }, (*decoder).taskPattern),
				doc:  "The tasks that the role is about; others do not exist for it. A `*` stands for any text.",
			},
			{
				name: "methods", example: `["run"]`,
				kind: list(func(r *Role) *[]string { return &r.Methods }, func(d *decoder, v value, s string) bool {
					all := append([]string{MethodsRead, MethodsRun}, RoleMethods()...)
					if slices.Contains(all, s) {
						return true
					}
					detail := "It is read, run or the name of a method: " + strings.Join(RoleMethods(), ", ") + "."
					if near := nearest(s, all); near != "" {
						detail = fmt.Sprintf("Did you mean %q?", near)
					}
					d.errorf(v.rng(), detail, "%s: no role can have %q", v.name, s)
					return false
				}),
				doc: "What the role may do: `read` is to see its tasks and jobs, `run` is that and to start and stop them, and names of " +
					"methods of the API allow these. An administrator's method is allowed only by its name: `SwitchTask`, `Drain`, `Reload`, " +
					"`ListKeys` and `RevokeKey`; and so are `ListDeliveries` and `ReplayDelivery`, which are about requests to webhooks " +
					"that are kept. No role can make keys, see secrets, or manage the authority.",
			},
			{
				name: "jobs", example: `"own"`, fallback: `"own"`,
				kind: choice(func(r *Role) *RoleJobs { return &r.Jobs }, JobsOwn, JobsAll),
				doc: "Whose jobs of these tasks the role sees and stops: `own` are those that the client started itself, `all` are also " +
					"those of others. Of the commands, `all` are those that clients on other machines run as the same user.",
			},
			{
				name: "commands", example: "false", fallback: "false",
				kind: boolean(func(r *Role) *bool { return &r.Commands }),
				doc:  "Whether the role may run commands beside tasks: any program of this machine, as `run_as`.",
			},
			{
				name: "run_as", example: `"builder"`,
				kind: text(func(d *decoder, v value, r *Role) { d.runAs(v, &r.RunAs) }),
				doc: "The user that commands of the role run as, which they need. It is never root. They begin in the home of that user, and " +
					"are looked up in the system's usual `PATH`.",
			},
		},
	}
}

// subject checks the pattern of a client's name.
func (d *decoder) subject(v value, s string) bool {
	const forms = `Write it as "spiffe://example.org/user/*" or as "CN=ops,O=Example".`
	_, name, _ := strings.Cut(s, "://")
	host, _, _ := strings.Cut(name, "/")
	switch {
	case !isURI(s) && !strings.Contains(s, "="):
		d.errorf(v.rng(), forms, "%s: %q is neither a URI nor a distinguished name", v.name, s)
	case strings.Contains(s, "**"):
		d.errorf(v.rng(), "One * stands for one part. Write */* for two.", "%s: %q has two * in a row", v.name, s)
	case isURI(s) && (strings.Contains(host, "*") || host == ""):
		d.errorf(v.rng(), forms, "%s: the domain of %q must be written out", v.name, s)
	case !isURI(s) && strings.Contains(s, ", "):
		d.errorf(v.rng(), fmt.Sprintf("Write it as %q.", strings.ReplaceAll(s, ", ", ",")), "%s: %q has a blank after a comma", v.name, s)
	default:
		return true
	}
	return false
}

// taskPattern checks the pattern of a task's name.
func (d *decoder) taskPattern(v value, s string) bool {
	if !ValidName(strings.ReplaceAll(s, "*", "0")) {
		d.errorf(v.rng(), `Write for example: tasks = ["build", "deploy-*"]`, "%s: %q is the name of no task, which has 1 to 63 characters", v.name, s)
		return false
	}
	if !strings.Contains(s, "*") {
		d.roleTasks = append(d.roleTasks, mention{v, s})
	}
	return true
}

// runAs sets dst to the user that commands of a role run as.
func (d *decoder) runAs(v value, dst *string) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	if strings.Trim(s, "0") == "" || s == "root" || d.opts.IsRoot != nil && d.opts.IsRoot(s) {
		d.errorf(v.rng(), "A remote command never runs as root. Name a user of this machine.", "run_as must not be root")
		return
	}
	if d.accountName(v, s, d.opts.LookupUser, "user", "Its commands are refused until it does.") {
		*dst = s
	}
}

// mention is a name of something else of the configuration, where it stands.
type mention struct {
	v    value
	name string
}

// role decodes one role block.
func (b *builder) role(d *decoder, found *hcl.Block) {
	label := found.LabelRanges[0]
	r := &Role{Name: found.Labels[0], Pos: d.pos(found.TypeRange)}
	d.tables.role.begin(r)
	before := len(d.diags)
	whole := decodeBody(d, found.Body, d.tables.role, r) && !d.diags[before:].HasErrors() // or what is missing may be so for that
	i := slices.IndexFunc(b.cfg.Roles, func(o *Role) bool { return o.Name == r.Name })
	switch {
	case !ValidName(r.Name):
		d.errorf(label, fmt.Sprintf("A name is 1 to %d of a–z, 0–9, _ and -, and begins with a letter or a digit.", maxNameLength),
			"%q cannot be the name of a role", r.Name)
	case i >= 0:
		d.errorf(label, fmt.Sprintf("The first is at %s.", b.cfg.Roles[i].Pos), "role %q is defined twice", r.Name)
	case whole && len(r.Methods) == 0:
		d.errorf(found.TypeRange, `Write for example: methods = ["run"]`, "role %q allows nothing: it has no methods", r.Name)
	case whole && r.Commands && r.RunAs == "":
		d.errorf(found.TypeRange, `Write for example: run_as = "builder"`, "role %q has commands, and no run_as that they run as", r.Name)
	case whole && len(r.Subjects)+len(r.Groups) == 0:
		d.warnf(found.TypeRange, "Give it subjects or groups.", "nobody has role %q", r.Name)
	}
	b.cfg.Roles = append(b.cfg.Roles, r)
}

// checkRoles reports groups of unknown providers, and tasks that do not exist.
func (b *builder) checkRoles(decoders []*decoder) {
	var providers []string
	for _, p := range b.cfg.Providers {
		providers = append(providers, p.Name)
	}
	tasks := slices.Sorted(maps.Keys(b.cfg.Tasks))
	for _, d := range decoders {
		for _, use := range d.groups {
			name, _, _ := strings.Cut(use.name, ":")
			if !slices.Contains(providers, name) {
				d.errorf(use.v.rng(), nearby(name, providers, "A group is PROVIDER:GROUP, or a provider."), "%s: there is no provider %q", use.v.name, name)
			}
		}
		for _, use := range d.roleTasks {
			if !slices.Contains(tasks, use.name) {
				d.warnf(use.v.rng(), nearby(use.name, tasks, ""), "%s: there is no task %q", use.v.name, use.name)
			}
		}
	}
}

// nearby suggests one of names for one that does not exist.
func nearby(name string, names []string, otherwise string) string {
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("Did you mean %q?", near)
	}
	return otherwise
}
