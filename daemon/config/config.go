// Package config turns configuration files into one checked, immutable Config: rtask.hcl, which holds what is not a task,
// and the files of tasks.d, which hold the tasks. It is strict: an unknown name, a wrong type or an impossible value is an
// error with its place in the file, and all errors of all files are reported at once.
//
// It knows nothing of jobs, callers or sockets, starts nothing, and asks the machine only what Options lets it ask. It
// imports nothing of the project but sandbox/spec, daemon/auth/cost and daemon/auth/webhook; every package of the engine may import it.
package config

import (
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// Config is a whole configuration. It and all it points to are never written after Load returned it: it is read without
// a lock, and a reload makes another one.
type Config struct {
	// Tasks are the tasks by name.
	Tasks map[string]*Task
	// Argon2 is the cost of new hashes of API keys.
	Argon2 Argon2
	// LimitsUnavailable says what to do with a task whose limits this machine cannot enforce.
	LimitsUnavailable LimitsUnavailable
	// MaxJobs is how many jobs may run at a time, all tasks and commands together.
	MaxJobs int
	// DynamicUIDs are the uids of jobs of tasks that name no user.
	DynamicUIDs spec.UIDRange
	// Retention bounds what is kept of jobs that have ended.
	Retention spec.Retention
	// PublicURL is how the world calls the gateway, without a slash at its end.
	PublicURL string
	// TrustedProxies are whose X-Forwarded-For is believed, and with TrustUnix whoever connects by a Unix socket.
	TrustedProxies []netip.Prefix
	TrustUnix      bool
	// AllowPlaintext lets the gateway serve HTTP without TLS on addresses that are not loopback.
	AllowPlaintext bool
	// Remote and Authority are about clients on other machines, Providers are where these log in, and Roles what they may do. Both are
	// in the order of the file.
	Remote    Remote
	Authority Authority
	Providers []*Provider
	Roles     []*Role
	// Warnings are what Load found that keeps nothing from working for ever: a user or a folder that is not there yet.
	Warnings Diagnostics
	// Files are the files that it was made of.
	Files []File
	// keyPlaces are where tasks name their API keys: api_keys, or the task's name where defaults have them.
	keyPlaces map[string]Diagnostic
	// settings are what Show shows of each task.
	settings map[string]written
}

// Argon2 are the parameters of Argon2id, RFC 9106. The least allowed are those of the OWASP Password Storage Cheat Sheet.
type Argon2 struct {
	// MemoryKiB is the memory in KiB.
	MemoryKiB uint32
	// Time is the number of passes.
	Time uint32
	// Threads is the number of lanes.
	Threads uint8
}

// LimitsUnavailable is what to do with a limit that cannot be enforced here.
type LimitsUnavailable string

// The values of LimitsUnavailable.
const (
	// LimitsUnavailableRefuse refuses to start the job, the default.
	LimitsUnavailableRefuse LimitsUnavailable = "refuse"
	// LimitsUnavailableWarn starts it without the limit and says so.
	LimitsUnavailableWarn LimitsUnavailable = "warn"
)

// Pos is a place in a configuration file. Lines and columns count from 1; a column is a Unicode code point.
type Pos struct {
	File         string
	Line, Column int
}

// String is the place as compilers write it.
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Task is one task. What a field means in full is said at its row in taskAttributes.
type Task struct {
	// Name is the task's name, as ValidName has it.
	Name string
	// Command is the argument vector, at least the program. A program with a slash that does not begin with one is
	// relative to Workdir; one without is looked up in PATH.
	Command []string
	// Workdir is an absolute path.
	Workdir string
	// User and Group are names or numbers. An empty User is a uid of the job's own, an empty Group the user's own.
	User, Group string
	// SupplementaryGroups are further groups, names or numbers.
	SupplementaryGroups []string
	// Enabled is false for a task that is not to be started.
	Enabled bool
	// Blocking makes the HTTP reply wait for the result.
	Blocking bool
	// OnDisconnect is what becomes of a blocking one whose client goes away while it waits.
	OnDisconnect OnDisconnect
	// APIKeys are names of keys that may start the task.
	APIKeys []string
	// AllowUsers and AllowGroups are local users who may.
	AllowUsers, AllowGroups []string
	// Timeout is how long it may run; 0: for ever.
	Timeout time.Duration
	// TimeoutStop is the time between KillSignal and SIGKILL; 0: SIGKILL at once.
	TimeoutStop time.Duration
	// KillSignal asks the job to end.
	KillSignal syscall.Signal
	// MaxInputBytes is the most a request may carry.
	MaxInputBytes int64
	// MaxOutputBytes is how much of each stream is in the reply.
	MaxOutputBytes int64
	// RedirectStderr sends standard error where standard output goes.
	RedirectStderr bool
	// Environment is NAME=value, sorted by name.
	Environment []string
	// EnvironmentFile is a file of variables that go before those of Environment, read at each start; "": none. See
	// ReadEnvironmentFile.
	EnvironmentFile string
	// PassRequestHeaders are the headers of a request that the job gets, each as its HeaderVariable.
	PassRequestHeaders []string
	// Params are what a request may say in words of its own.
	Params []*Param
	// OnFailure and OnSuccess are the tasks that its end starts. No task triggers itself, not round a circle either.
	OnFailure, OnSuccess []string
	// Limits are the resource limits.
	Limits spec.Limits
	// DurationBuckets are the upper bounds of the histogram of its durations, in seconds, rising; none: those of all tasks.
	DurationBuckets []float64
	// LogMaxBytes is the cap of the job's log.
	LogMaxBytes int64
	// Journal copies the job's lines to the journal.
	Journal bool
	// Retention is how long the HTTP API knows the result.
	Retention time.Duration
	// RateLimit is how many requests a second start it, on average; 0: any number.
	RateLimit float64
	// MaxConcurrent is how many jobs of it may run at once; 0: any number. Overflow says what becomes of one more, and Queue
	// how many may wait.
	MaxConcurrent int
	Overflow      spec.Overflow
	Queue         int
	// Pool is about its slots.
	Pool Pool
	// Sandbox is how its jobs are kept from others. DynamicUser and UserName are not for a configuration to set.
	Sandbox spec.Sandbox
	// Webhooks are the URLs at which others start it, in the order of the file. They are no part of Hash: no job depends on them.
	Webhooks []*Webhook `json:"-"`
	// Schedule and Watch are what systemd starts it by; nil: nothing. They are no part of Hash either.
	Schedule *Schedule `json:"-"`
	Watch    *Watch    `json:"-"`
	// Retry is how often it is tried again after a failure. It is no part of Hash.
	Retry Retry `json:"-"`
	// Pos is where the task stands.
	Pos Pos
	// Hash tells this configuration of the task from every other. Pos is no part of it.
	Hash string
}

// OnDisconnect is what becomes of a job when the client goes away that waits for it.
type OnDisconnect string

// The values of OnDisconnect.
const (
	// OnDisconnectContinue lets it run on.
	OnDisconnectContinue OnDisconnect = "continue"
	// OnDisconnectStop stops it.
	OnDisconnectStop OnDisconnect = "stop"
)

// Pool is how many slots of a task wait for jobs, and how long. A slot is a scope that is used by one job after the other.
type Pool struct {
	// Warm is how many are kept ready at any time.
	Warm int
	// Keep is how long one stays after a job; 0: one scope for each job.
	Keep time.Duration
}

// maxNameLength is the longest name of a task or key: with prefix, number and suffix it still fits a unit's name and a
// file's name.
const maxNameLength = 63

// ValidName reports whether s can be the name of a task or an API key: [a-z0-9][a-z0-9_-]{0,62}. A task cannot be named
// "cmd" all the same.
func ValidName(s string) bool {
	if s == "" || len(s) > maxNameLength || s[0] == '_' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// begin is the configuration of no files at all.
func (t *tables) begin() *Config {
	b := builder{cfg: &Config{Tasks: map[string]*Task{}, keyPlaces: map[string]Diagnostic{}}}
	t.root.begin(&b)
	t.argon2.begin(&b.cfg.Argon2)
	t.retention.begin(&b.cfg.Retention)
	t.remote.begin(&b.cfg.Remote)
	t.authority.begin(&b.cfg.Authority)
	return b.cfg
}

// beginTask is a task of which nothing is said.
func (t *tables) beginTask() Task {
	var d draft
	t.task.begin(&d)
	t.pool.begin(&d.Pool)
	d.Sandbox = profile(ProfileDefault)
	return d.Task
}
