package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

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
	// starters are where its schedule and path stand.
	starters []hcl.Range
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
		{name: "schedule", decode: func(d *decoder, found *hcl.Block, t *draft) { d.schedule(found, t) }},
		{name: "path", decode: func(d *decoder, found *hcl.Block, t *draft) { d.watch(found, t) }},
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
		{name: "retry", decode: func(d *decoder, found *hcl.Block, t *draft) {
			if t.Retry == (Retry{}) { // otherwise it has what stands in defaults
				d.tables.retry.begin(&t.Retry)
			}
			decodeBody(d, found.Body, d.tables.retry, &t.Retry)
		}},
	}
}

// taskAttributes are the attributes of a task.
func taskAttributes() []attribute[draft] {
	return []attribute[draft]{
		{
			name: "command", example: `["/usr/bin/make", "deploy"]`,
			kind: texts(func(d *decoder, v value, t *draft) { d.command(v, &t.Command) }),
			doc: "The argument vector. It is needed. Nothing of a request ever becomes part of it: a request reaches the job as its standard " +
				"input. A program without a slash is looked up in `/usr/local/sbin`, `/usr/local/bin`, `/usr/sbin`, `/usr/bin`, `/sbin` " +
				"and `/bin` or the `PATH` of `environment`. One with a slash that does not begin with one is relative to `workdir`. No " +
				"shell is involved unless it is named.",
		},
		{
			name: "workdir", example: `"/srv/project"`, fallback: `"/"`, inherit: true,
			kind: text(func(d *decoder, v value, t *draft) { d.workdir(v, &t.Workdir) }),
			doc:  "The folder the job starts in, an absolute path without `..`. A task whose folder is missing is refused.",
		},
		{
			name: "user", example: `"builder"`, inherit: true,
			otherwise: "a uid of the job's own, one out of `dynamic_uids`, which implies some switches of the sandbox",
			kind:      text(func(d *decoder, v value, t *draft) { d.account(v, &t.User, d.opts.LookupUser, "user") }),
			doc:       "The user it runs as, a name or a number. A task never runs as root unless this says so. `rtask-gateway` is an error.",
		},
		{
			name: "group", example: `"builder"`, otherwise: "the user's", inherit: true,
			kind: text(func(d *decoder, v value, t *draft) { d.account(v, &t.Group, d.opts.LookupGroup, "group") }),
			doc:  "The group it runs as, a name or a number.",
		},
		{
			name: "supplementary_groups", example: `["docker"]`, inherit: true,
			kind: list(func(t *draft) *[]string { return &t.SupplementaryGroups }, func(d *decoder, v value, s string) bool {
				return d.accountName(v, s, d.opts.LookupGroup, "group", untilItDoes)
			}),
			doc: "Further groups it is in.",
		},
		{
			name: "enabled", example: "true", fallback: "true",
			kind: boolean(func(t *draft) *bool { return &t.Enabled }),
			doc:  "Whether it may be started. `rtaskctl tasks enable` and `disable` go before it.",
		},
		{
			name: "blocking", example: "true", fallback: "false", inherit: true,
			kind: boolean(func(t *draft) *bool { return &t.Blocking }),
			doc:  "Whether the HTTP reply waits for the result. Otherwise it has the job's id only.",
		},
		{
			name: "on_disconnect", example: `"stop"`, fallback: `"continue"`, inherit: true,
			kind: choice(func(t *draft) *OnDisconnect { return &t.OnDisconnect }, OnDisconnectContinue, OnDisconnectStop),
			doc: "What becomes of a job of a blocking task when the HTTP client that waits for it goes away: `\"continue\"` lets it run on, " +
				"`\"stop\"` stops it, unless another request was merged into it, or the request had an `Idempotency-Key`: its client may come " +
				"again for the answer, and a job that was stopped in between would be that answer for a day.",
		},
		{
			name: "api_keys", example: `["github-action"]`, inherit: true,
			kind: list(func(t *draft) *[]string { return &t.APIKeys }, (*decoder).keyName),
			doc:  "The names of the API keys that may start it over HTTP, see `rtaskctl key add`.",
		},
		{
			name: "allow_users", example: `["alice"]`, inherit: true,
			kind: list(func(t *draft) *[]string { return &t.AllowUsers }, func(d *decoder, v value, s string) bool {
				return d.callerName(v, s, d.opts.LookupUser, "user")
			}),
			doc: "The local users who may start it, names or numbers, beside root and the groups `rtask` and `rtask-admin`.",
		},
		{
			name: "allow_groups", example: `["devs"]`, inherit: true,
			kind: list(func(t *draft) *[]string { return &t.AllowGroups }, func(d *decoder, v value, s string) bool {
				return d.callerName(v, s, d.opts.LookupGroup, "group")
			}),
			doc: "The groups of local users who may start it.",
		},
		{
			name: "rate_limit", example: "0.5", fallback: "0", inherit: true,
			kind: kind[draft]{word: "number", least: "0", most: "1000000", decode: func(d *decoder, v value, t *draft) { d.rate(v, &t.RateLimit) }},
			doc: "How many requests a second may start it, on average, such as 0.5; 0 is any number. One second's share of them, at least " +
				"one, may come at the same time. A request too many is refused with the time after which there is room for another one. It counts " +
				"requests of those who may start the task, over HTTP and on the command line, but not what `on_failure` and `on_success` " +
				"start, and comes before `max_concurrent`.",
		},
		{
			name: "max_concurrent", example: "1", fallback: "0", inherit: true,
			kind: integer(func(t *draft) *int { return &t.MaxConcurrent }, 0, maxCount),
			doc:  "How many jobs of the task may run at the same time; 0 is any number.",
		},
		{
			name: "overflow", example: `"queue"`, fallback: `"reject"`, inherit: true,
			kind: choice(func(t *draft) *spec.Overflow { return &t.Overflow }, spec.Reject, spec.Queue, spec.Coalesce),
			doc: "What becomes of a request when `max_concurrent` is reached: `\"reject\"` refuses it, `\"queue\"` lets it wait for its turn, in " +
				"the order of arrival, `\"coalesce\"` lets it wait, too, and requests for the same thing become one job: while a job waits, " +
				"it takes the input and the headers of each further request of the same webhook, event and ref, or with the same API key " +
				"or user and the same parameters. So ten pushes to one branch that come while a job runs are one more job, with the newest " +
				"of them, and a push to another branch waits beside it. A request to a webhook that names no ref waits as with `\"queue\"`. " +
				"Each request has an id of its own, and each of these ids is one of that job: stopping one of them stops it for all. One " +
				"job takes over 1000 requests at most. Nothing that was accepted is dropped: it survives the daemon and the machine.",
		},
		{
			name: "queue", example: "10", fallback: "10", inherit: true,
			kind: integer(func(t *draft) *int { return &t.Queue }, 0, maxCount),
			doc:  "How many jobs may wait. Further requests are answered with `429`.",
		},
		{
			name: "timeout", example: `"300s"`, directive: "RuntimeMaxSec", fallback: `"30s"`, inherit: true,
			kind: duration(func(t *draft) *time.Duration { return &t.Timeout }, true),
			doc:  "How long it may run; 0 and `\"infinity\"`: for ever.",
		},
		{
			name: "timeout_stop_sec", example: `"10s"`, directive: "TimeoutStopSec", fallback: `"10s"`, inherit: true,
			kind: duration(func(t *draft) *time.Duration { return &t.TimeoutStop }, false),
			doc:  "The time between `kill_signal` and SIGKILL when it is stopped or its time is up; 0: SIGKILL immediately.",
		},
		{
			name: "kill_signal", example: `"SIGTERM"`, directive: "KillSignal", fallback: `"SIGTERM"`, inherit: true,
			kind: kind[draft]{word: "string | number", decode: func(d *decoder, v value, t *draft) { d.signal(v, &t.KillSignal) }},
			doc:  "The signal that asks it to end: a name with or without SIG, `\"SIGRTMIN+N\"`, or a number from 1 to 64.",
		},
		{
			name: "max_input_bytes", example: `"16K"`, fallback: `"16K"`, inherit: true,
			kind: size(func(t *draft) *int64 { return &t.MaxInputBytes }, MaxInputBytes),
			doc:  "The most that a request may carry.",
		},
		{
			name: "max_output_bytes", example: `"16K"`, fallback: `"16K"`, inherit: true,
			kind: size(func(t *draft) *int64 { return &t.MaxOutputBytes }, maxOutputBytes),
			doc:  "How much of each stream is in the HTTP reply. The log has a cap of its own.",
		},
		{
			name: "redirect_stderr", example: "true", fallback: "true", inherit: true,
			kind: boolean(func(t *draft) *bool { return &t.RedirectStderr }),
			doc:  "Whether standard error goes where standard output goes.",
		},
		{
			name: "environment", example: `{ LOG_LEVEL = "info" }`, inherit: true,
			kind: kind[draft]{word: "object", decode: func(d *decoder, v value, t *draft) { d.environment(v, &t.env) }},
			doc: "Variables of the job's environment: `{ LOG_LEVEL = \"info\" }`. Names that begin with `RTASK_` and `REQUEST_HEADER_` are " +
				"rtask's own. Those of `defaults` are added name by name.",
		},
		{
			name: "environment_file", example: `"/etc/rtask/deploy.env"`, inherit: true,
			kind: text(func(d *decoder, v value, t *draft) { d.environmentFile(v, &t.EnvironmentFile) }),
			doc: "A file of further variables, an absolute path, in the notation of `EnvironmentFile=` of systemd.exec(5). It is read at " +
				"each start, and goes before `environment`. Others than root must not be able to write it. While it cannot be read the " +
				"task is refused.",
		},
		{
			name: "pass_request_headers", example: `["X-GitHub-Event"]`, inherit: true,
			kind: texts(func(d *decoder, v value, t *draft) { d.requestHeaders(v, &t.PassRequestHeaders) }),
			doc: "Headers of a request over HTTP that the job gets: `X-GitHub-Event` is `REQUEST_HEADER_X_GITHUB_EVENT` in its " +
				"environment. Several of one name are one, with a comma and a space between them. They are what a sender wrote, and " +
				"nobody has signed them. `Authorization`, `Proxy-Authorization`, `Cookie` and `X-Gitlab-Token` are an error.",
		},
		{
			name: "on_failure", example: `["notify"]`, otherwise: "none", inherit: true,
			kind: texts((*decoder).tasks),
			doc: "The tasks that are started when a job of it has failed, as with `OnFailure=` of systemd.unit(5). A job that was stopped " +
				"has not failed; one that was lost has. They run as they are configured, with no input, see [TRIGGERED TASKS]. That a " +
				"task would trigger itself, directly or round a circle, is an error. A task that the list of `defaults` names does not " +
				"inherit that list.",
		},
		{
			name: "on_success", example: `["notify"]`, otherwise: "none", inherit: true,
			kind: texts((*decoder).tasks),
			doc:  "The tasks that are started when a job of it has succeeded. Otherwise as `on_failure`.",
		},
		{
			name: "duration_buckets", example: "[0.1, 1, 10, 60]", inherit: true,
			kind: kind[draft]{word: "list of numbers", decode: func(d *decoder, v value, t *draft) { d.buckets(v, &t.DurationBuckets) }},
			doc:  "The upper bounds of the histogram `task_duration_seconds`, in seconds: rising numbers, 50 at most.",
		},
		{
			name: "retention", example: `"20s"`, fallback: `"20s"`, inherit: true,
			kind: duration(func(t *draft) *time.Duration { return &t.Retention }, false),
			doc:  "How long the HTTP API knows the result.",
		},
		{
			name: "log_max_bytes", example: `"64M"`, fallback: `"64M"`, inherit: true,
			kind: size(func(t *draft) *int64 { return &t.LogMaxBytes }, maxSize),
			doc:  "The cap of the job's log. What the job writes beyond it is counted and dropped; the job is not held up.",
		},
		{
			name: "journal", example: "true", fallback: "true", inherit: true,
			kind: boolean(func(t *draft) *bool { return &t.Journal }),
			doc:  "Whether the job's lines are copied to the journal.",
		},
	}
}

// poolScope is what may stand in pool { … }.
func poolScope() scope[Pool] {
	return scope[Pool]{
		where: inPool,
		attributes: []attribute[Pool]{
			{
				name: "warm", example: "2", fallback: "0",
				kind: integer(func(p *Pool) *int { return &p.Warm }, 0, maxWarm),
				doc:  "How many slots are kept ready at any time, also before the first job.",
			},
			{
				name: "keep", example: `"10s"`, fallback: `"10s"`,
				kind: duration(func(p *Pool) *time.Duration { return &p.Keep }, false),
				doc:  "How long a slot stays after a job; `\"0s\"` is one scope for each job.",
			},
		},
	}
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
		d.checkStarters(&t)
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
