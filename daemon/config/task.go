package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/sandbox/spec"
)

const (
	// reservedTask is the name that jobs of commands have in place of a task's.
	reservedTask = "cmd"
	// gatewayUser faces the network and must stay nothing but the gateway; its group likewise.
	gatewayUser = "rtask-gateway"
	// maxCount is the largest number of jobs that run or wait, and maxWarm that of slots that wait for them.
	maxCount = 1_000_000
	maxWarm  = 100
	// maxTasks is how many tasks a configuration may have.
	maxTasks = 10_000
	// maxOutputBytes is the largest max_output_bytes: a reply is held in memory.
	maxOutputBytes = 64 << 20
)

// MaxInputBytes is the largest input that a request can carry, in bytes: what the engine reads of a message is bounded.
const MaxInputBytes = 32 << 20

// draft is a Task while it is made.
type draft struct {
	Task
	// env is the environment by name.
	env map[string]string
	// triggers are OnFailure and OnSuccess.
	triggers triggers
	// written is what stands in defaults.
	written written
}

// taskScope is what may stand in a task.
func taskScope() scope[draft] {
	return scope[draft]{where: inTask, attributes: taskAttributes(), blocks: append(taskBlocks(), ownBlocks()...)}
}

// defaultsScope is what may stand in defaults { … }: of a task all that can be the same for several.
func defaultsScope() scope[draft] {
	return scope[draft]{
		where:      inDefaults,
		attributes: slices.DeleteFunc(taskAttributes(), func(a attribute[draft]) bool { return !a.inherit }),
		blocks:     taskBlocks(),
	}
}

// ownBlocks are the blocks that a task has for itself alone.
func ownBlocks() []block[draft] {
	return []block[draft]{
		{name: "param", label: "NAME", decode: func(d *decoder, found *hcl.Block, t *draft) { d.param(found, t) }},
		{name: "webhook", label: "NAME", decode: func(d *decoder, found *hcl.Block, t *draft) { d.webhook(found, t) }},
	}
}

// taskBlocks are the blocks of a task.
func taskBlocks() []block[draft] {
	return []block[draft]{
		{name: "limits", decode: func(d *decoder, found *hcl.Block, t *draft) {
			decodeBody(d, found.Body, d.tables.limits, &t.Limits)
		}},
		{name: "sandbox", decode: func(d *decoder, found *hcl.Block, t *draft) {
			decodeBody(d, found.Body, d.tables.sandbox, &t.Sandbox)
		}},
		{name: "pool", decode: func(d *decoder, found *hcl.Block, t *draft) {
			decodeBody(d, found.Body, d.tables.pool, &t.Pool)
		}},
	}
}

// taskAttributes are the attributes of a task.
func taskAttributes() []attribute[draft] {
	return []attribute[draft]{
		{
			name: "command", example: `["/usr/bin/make", "deploy"]`,
			doc:    "The argument vector. Nothing of a request ever becomes part of it. A relative path with a slash is relative to workdir.",
			decode: func(d *decoder, v value, t *draft) { d.command(v, &t.Command) },
		},
		{
			name: "workdir", example: `"/srv/project"`, inherit: true,
			doc:      `The folder the job starts in.`,
			fallback: `"/"`,
			decode:   func(d *decoder, v value, t *draft) { d.workdir(v, &t.Workdir) },
		},
		{
			name: "user", example: `"builder"`, inherit: true,
			doc:       "The user it runs as.",
			otherwise: "a uid of the job's own",
			decode:    func(d *decoder, v value, t *draft) { d.account(v, &t.User, d.opts.LookupUser, "user") },
		},
		{
			name: "group", example: `"builder"`, inherit: true,
			doc:       "The group it runs as.",
			otherwise: "the user's",
			decode:    func(d *decoder, v value, t *draft) { d.account(v, &t.Group, d.opts.LookupGroup, "group") },
		},
		{
			name: "supplementary_groups", example: `["docker"]`, inherit: true,
			doc: "Further groups it is in.",
			decode: func(d *decoder, v value, t *draft) {
				d.names(v, &t.SupplementaryGroups, func(e value, s string) bool { return d.accountName(e, s, d.opts.LookupGroup, "group") })
			},
		},
		{
			name: "enabled", example: "true",
			doc:      "Whether it may be started.",
			fallback: "true",
			decode:   func(d *decoder, v value, t *draft) { d.bool(v, &t.Enabled) },
		},
		{
			name: "blocking", example: "true", inherit: true,
			doc:      "Whether the HTTP reply waits for the result.",
			fallback: "false",
			decode:   func(d *decoder, v value, t *draft) { d.bool(v, &t.Blocking) },
		},
		{
			name: "on_disconnect", example: `"stop"`, inherit: true,
			doc:      "What becomes of a blocking one whose client goes away: continue or stop.",
			fallback: `"continue"`,
			decode: func(d *decoder, v value, t *draft) {
				d.choice(v, (*string)(&t.OnDisconnect), string(OnDisconnectContinue), string(OnDisconnectStop))
			},
		},
		{
			name: "api_keys", example: `["github-action"]`, inherit: true,
			doc:    "The names of the API keys that may start it.",
			decode: func(d *decoder, v value, t *draft) { d.names(v, &t.APIKeys, d.keyName) },
		},
		{
			name: "allow_users", example: `["alice"]`, inherit: true,
			doc: "The local users who may start it.",
			decode: func(d *decoder, v value, t *draft) {
				d.names(v, &t.AllowUsers, func(e value, s string) bool { return d.callerName(e, s, d.opts.LookupUser, "user") })
			},
		},
		{
			name: "allow_groups", example: `["devs"]`, inherit: true,
			doc: "The groups of local users who may start it.",
			decode: func(d *decoder, v value, t *draft) {
				d.names(v, &t.AllowGroups, func(e value, s string) bool { return d.callerName(e, s, d.opts.LookupGroup, "group") })
			},
		},
		{
			name: "rate_limit", example: "0.5", inherit: true,
			doc:      "How many requests a second may start it, on average; 0: any number.",
			fallback: "0",
			decode:   func(d *decoder, v value, t *draft) { d.rate(v, &t.RateLimit) },
		},
		{
			name: "max_concurrent", example: "1", inherit: true,
			doc:      "How many jobs of it may run at once; 0: any number.",
			fallback: "0",
			decode:   func(d *decoder, v value, t *draft) { d.count(v, &t.MaxConcurrent, maxCount) },
		},
		{
			name: "overflow", example: `"queue"`, inherit: true,
			doc:      "What becomes of a request when max_concurrent is reached: reject, queue or coalesce.",
			fallback: `"reject"`,
			decode: func(d *decoder, v value, t *draft) {
				d.choice(v, (*string)(&t.Overflow), string(spec.Reject), string(spec.Queue), string(spec.Coalesce))
			},
		},
		{
			name: "queue", example: "10", inherit: true,
			doc:      "How many jobs may wait.",
			fallback: "10",
			decode:   func(d *decoder, v value, t *draft) { d.count(v, &t.Queue, maxCount) },
		},
		{
			name: "timeout", example: `"300s"`, directive: "RuntimeMaxSec", inherit: true,
			doc:      `How long it may run; 0 and "infinity": for ever.`,
			fallback: `"30s"`,
			decode:   func(d *decoder, v value, t *draft) { d.duration(v, &t.Timeout, true) },
		},
		{
			name: "timeout_stop_sec", example: `"10s"`, directive: "TimeoutStopSec", inherit: true,
			doc:      "The time between kill_signal and SIGKILL; 0: SIGKILL at once.",
			fallback: `"10s"`,
			decode:   func(d *decoder, v value, t *draft) { d.duration(v, &t.TimeoutStop, false) },
		},
		{
			name: "kill_signal", example: `"SIGTERM"`, directive: "KillSignal", inherit: true,
			doc:      "The signal that asks it to end.",
			fallback: `"SIGTERM"`,
			decode:   func(d *decoder, v value, t *draft) { d.signal(v, &t.KillSignal) },
		},
		{
			name: "max_input_bytes", example: `"16K"`, inherit: true,
			doc:      "The most that a request may carry, 32M at most.",
			fallback: `"16K"`,
			decode:   func(d *decoder, v value, t *draft) { d.sizeWithin(v, &t.MaxInputBytes, 0, MaxInputBytes) },
		},
		{
			name: "max_output_bytes", example: `"16K"`, inherit: true,
			doc:      "How much of each stream is in the reply, 64M at most. The log has a cap of its own.",
			fallback: `"16K"`,
			decode:   func(d *decoder, v value, t *draft) { d.sizeWithin(v, &t.MaxOutputBytes, 0, maxOutputBytes) },
		},
		{
			name: "redirect_stderr", example: "true", inherit: true,
			doc:      "Whether standard error goes where standard output goes.",
			fallback: "true",
			decode:   func(d *decoder, v value, t *draft) { d.bool(v, &t.RedirectStderr) },
		},
		{
			name: "environment", example: `{ LOG_LEVEL = "info" }`, inherit: true,
			doc:    "Variables of the job's environment. Those of defaults are added name by name.",
			decode: func(d *decoder, v value, t *draft) { d.environment(v, &t.env) },
		},
		{
			name: "environment_file", example: `"/etc/rtask/deploy.env"`, inherit: true,
			doc:    "A file of further variables, read at each start, EnvironmentFile=.",
			decode: func(d *decoder, v value, t *draft) { d.environmentFile(v, &t.EnvironmentFile) },
		},
		{
			name: "pass_request_headers", example: `["X-GitHub-Event"]`, inherit: true,
			doc:    "Headers of a request over HTTP that are passed on as REQUEST_HEADER_X_GITHUB_EVENT.",
			decode: func(d *decoder, v value, t *draft) { d.requestHeaders(v, &t.PassRequestHeaders) },
		},
		{
			name: "on_failure", example: `["notify"]`, inherit: true,
			doc:       "The tasks that are started when it has failed, OnFailure=.",
			otherwise: "none",
			decode:    func(d *decoder, v value, t *draft) { d.tasks(v, t) },
		},
		{
			name: "on_success", example: `["notify"]`, inherit: true,
			doc:       "The tasks that are started when it has succeeded, OnSuccess=.",
			otherwise: "none",
			decode:    func(d *decoder, v value, t *draft) { d.tasks(v, t) },
		},
		{
			name: "duration_buckets", example: "[0.1, 1, 10, 60]", inherit: true,
			doc:    "The upper bounds of the histogram task_duration_seconds, in seconds.",
			decode: func(d *decoder, v value, t *draft) { d.buckets(v, &t.DurationBuckets) },
		},
		{
			name: "retention", example: `"20s"`, inherit: true,
			doc:      "How long the HTTP API knows the result.",
			fallback: `"20s"`,
			decode:   func(d *decoder, v value, t *draft) { d.duration(v, &t.Retention, false) },
		},
		{
			name: "log_max_bytes", example: `"64M"`, inherit: true,
			doc:      "The cap of the job's log.",
			fallback: `"64M"`,
			decode:   func(d *decoder, v value, t *draft) { d.size(v, &t.LogMaxBytes) },
		},
		{
			name: "journal", example: "true", inherit: true,
			doc:      "Whether the job's lines are copied to the journal.",
			fallback: "true",
			decode:   func(d *decoder, v value, t *draft) { d.bool(v, &t.Journal) },
		},
	}
}

// poolScope is what may stand in pool { … }.
func poolScope() scope[Pool] {
	return scope[Pool]{
		where: inPool,
		attributes: []attribute[Pool]{
			{
				name: "warm", example: "2",
				doc:      "How many slots are kept ready at any time.",
				fallback: "0",
				decode:   func(d *decoder, v value, p *Pool) { d.count(v, &p.Warm, maxWarm) },
			},
			{
				name: "keep", example: `"10s"`,
				doc:      "How long a slot stays after a job; 0: one scope for each job.",
				fallback: `"10s"`,
				decode:   func(d *decoder, v value, p *Pool) { d.duration(v, &p.Keep, false) },
			},
		},
	}
}

// count sets dst to a number of things, 0 to most.
func (d *decoder) count(v value, dst *int, most int64) {
	n := int64(*dst)
	d.integer(v, &n, 0, most)
	*dst = int(n)
}

// hash returns what Task.Hash is of t.
func (t Task) hash() string {
	t.Pos, t.Hash = Pos{}, ""
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // it is plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// placeOf is a warning at an attribute of the task that is being decoded, or at its name if it stands in defaults.
func (d *decoder) placeOf(setting string, label hcl.Range) Diagnostic {
	at, ok := d.places[setting]
	if !ok {
		at = label
	}
	pos, line := d.source.place(at.Start.Byte)
	return Diagnostic{Severity: SeverityWarning, File: pos.File, Line: pos.Line, Column: pos.Column, Source: line}
}

// KeyProblems returns a warning for each name of an API key in a task of which problem returns one. Keys come and go without a
// reload, so Load asks for none.
func (c *Config) KeyProblems(problem func(key string) (summary, detail string)) Diagnostics {
	var all Diagnostics
	for _, name := range slices.Sorted(maps.Keys(c.keyPlaces)) {
		for _, key := range c.Tasks[name].APIKeys {
			d := c.keyPlaces[name].valid()
			if d.Summary, d.Detail = problem(key); d.Summary != "" {
				all = append(all, d)
			}
		}
	}
	return all
}

// inspect warns of what would keep a task from running on this machine.
func (d *decoder) inspect(t *Task, label hcl.Range) {
	if d.opts.Inspect == nil {
		return
	}
	for _, f := range d.opts.Inspect(t) {
		at, ok := d.places[f.Setting]
		if !ok { // it stands in defaults
			at = label
		}
		d.warnf(at, f.Detail, "%s", f.Summary)
	}
}

// task decodes one task block.
func (b *builder) task(d *decoder, found *hcl.Block) {
	label := found.LabelRanges[0]
	pos := d.pos(found.TypeRange)
	if d.source.json {
		// There, one "task" may hold many.
		pos = d.pos(label)
	}
	t := draft{Task: b.defaults.Task, env: maps.Clone(b.defaults.env), triggers: b.defaults.triggers.inherit(found.Labels[0])}
	t.Name, t.Pos = found.Labels[0], pos
	d.written, d.path, d.places = written{}, nil, map[string]hcl.Range{}
	before := len(d.diags)
	if decodeBody(d, found.Body, d.tables.task, &t) && t.Command == nil {
		d.errorf(label, `Write for example: command = ["/usr/bin/make", "deploy"]`, "task %q has no command", t.Name)
	}
	if !d.diags[before:].HasErrors() { // or a default that is not there may be one that is wrong
		d.checkParams(&t)
	}
	b.withWebhooks(&t, d.written)
	for _, name := range slices.Sorted(maps.Keys(t.env)) {
		t.Environment = append(t.Environment, name+"="+t.env[name])
	}
	t.OnFailure, t.OnSuccess = t.triggers.names("on_failure"), t.triggers.names("on_success")
	t.Hash = t.hash()
	if !d.diags[before:].HasErrors() {
		d.inspect(&t.Task, label)
	}
	switch first, twice := b.cfg.Tasks[t.Name]; {
	case !ValidName(t.Name):
		d.errorf(label, fmt.Sprintf("A name is 1 to %d of a–z, 0–9, _ and -, and begins with a letter or a digit.", maxNameLength),
			"%q cannot be the name of a task", t.Name)
	case t.Name == reservedTask:
		d.errorf(label, "Commands that are started without a task have it. Choose another one.", "%q cannot be the name of a task: it is reserved", t.Name)
	case len(b.cfg.Tasks) == maxTasks && !twice:
		d.errorf(label, "", "a configuration has %d tasks at most", maxTasks)
	case twice:
		d.errorf(label, fmt.Sprintf("The first is at %s.", first.Pos), "task %q is defined twice", t.Name)
	default:
		b.cfg.Tasks[t.Name] = &t.Task
		b.triggers[t.Name] = t.triggers
		if len(t.APIKeys) > 0 {
			b.cfg.keyPlaces[t.Name] = d.placeOf("api_keys", label)
		}
		if b.cfg.settings == nil {
			b.cfg.settings = map[string]written{}
		}
		b.cfg.settings[t.Name] = b.settingsOf(&t, d.written)
	}
}
