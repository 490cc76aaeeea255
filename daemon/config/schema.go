package config

import "github.com/rtask/rtask/sandbox/spec"

// tables are all that may stand in a configuration, place by place. They are made once for each load.
type tables struct {
	root, file     scope[builder]
	argon2         scope[Argon2]
	retention      scope[spec.Retention]
	task, defaults scope[draft]
	limits         scope[spec.Limits]
	sandbox        scope[spec.Sandbox]
	pool           scope[Pool]
	param          scope[Param]
	webhook        scope[hookDraft]
	schedule       scope[Schedule]
	watch          scope[Watch]
	retry          scope[Retry]
	remote         scope[Remote]
	authority      scope[Authority]
	provider       scope[Provider]
	role           scope[Role]
	// profiles are those of the sandbox that were needed until now.
	profiles map[string]spec.Sandbox
}

func newTables() *tables {
	return &tables{
		root: rootScope(), file: fileScope(), argon2: argon2Scope(), retention: retentionScope(), task: taskScope(), defaults: defaultsScope(),
		limits: limitsScope(), sandbox: sandboxScope(), pool: poolScope(), param: paramScope(), webhook: webhookScope(),
		schedule: scheduleScope(), watch: watchScope(), retry: retryScope(),
		remote: remoteScope(), authority: authorityScope(), provider: providerScope(), role: roleScope(),
		profiles: map[string]spec.Sandbox{},
	}
}

// place is one of the tables, whatever its attributes are set in.
type place struct {
	// block is as in Setting, and where as in scope.
	block, where string
	names        []string
	settings     []Setting
}

// places are all tables. What may stand in defaults may also stand in a place before.
func (t *tables) places() []place {
	sandbox := t.sandbox.place("sandbox")
	for i, one := range sandboxSwitches() {
		sandbox.settings[i].Profiles = map[string]string{}
		for _, name := range []string{ProfileOff, ProfileDefault, ProfileStrict} {
			sandbox.settings[i].Profiles[name] = one.in(name)
		}
	}
	return []place{
		t.root.place(""), t.file.place(""), t.argon2.place("argon2"), t.retention.place("retention"),
		t.remote.place("remote"), t.authority.place("authority"), t.provider.place("provider"), t.role.place("role"), t.task.place("task"), t.limits.place("limits"),
		sandbox, t.pool.place("pool"), t.param.place("param"), t.webhook.place("webhook"), t.schedule.place("schedule"), t.watch.place("path"), t.retry.place("retry"), t.defaults.place("defaults"),
	}
}

func (s scope[T]) place(block string) place {
	p := place{block: block, where: s.where, names: s.names()}
	for _, a := range s.attributes {
		p.settings = append(p.settings, Setting{
			Block: block, Name: a.name, Type: a.word, Values: a.values, Least: a.least, Most: a.most, Example: a.example,
			Default: a.fallback, Otherwise: a.otherwise, Doc: a.doc, Directive: a.directive, Inherit: a.inherit,
		})
	}
	return p
}

// Setting is one NAME = VALUE that a configuration may have.
type Setting struct {
	// Block is the block that it stands in: argon2, retention, remote, authority, provider, role, defaults, task, limits, sandbox, pool, param, webhook, schedule, path, retry, or "" for
	// rtask.hcl itself. What stands in limits, sandbox, pool and retry may stand in these blocks of defaults, too.
	Block string
	// Name is its name, Type what the manual calls its value, and Example a value as it is written in a file.
	Name, Type, Example string
	// Values are all that it may have, where there are few words. Least and Most are its bounds, as they are written in a file.
	Values      []string
	Least, Most string
	// Default is the value where nothing is said, as it is written in a file; "": none that could be written, and Otherwise may
	// say in words what holds.
	Default, Otherwise string
	// Profiles are the values of a switch of the sandbox in each profile, as they are written in a file; "": it does nothing.
	Profiles map[string]string
	// Doc says what it means, in the form that packaging/manual describes.
	Doc string
	// Directive is the systemd directive of the same meaning, "" if none.
	Directive string
	// Inherit says that it may stand in defaults, too. Settings of tasks only.
	Inherit bool
}

// Settings returns every setting there is, in the order of the tables that files are decoded with.
func Settings() []Setting {
	var all []Setting
	for _, p := range newTables().places() {
		all = append(all, p.settings...)
	}
	return all
}
