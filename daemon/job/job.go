// Package job is the library that rtask is built around: it starts jobs, stops them, tells their status and streams what
// they write, and finds them again after the process that started them has died.
//
// A program opens a Manager once, with a sandbox.Host and two folders:
//
//   - [Manager.Start] starts what a [Spec] says and returns the [Job] once its process runs;
//   - [Manager.Stop] ends a job and every process of it;
//   - [Manager.Status] returns it as it is now, by id, by the beginning of an id, or by its process;
//   - [Manager.StreamLogs] passes on what it wrote and writes, from the first byte.
//
// Each has an example. Close leaves the jobs running, and the next Manager on the same folders has them again. A Job is a value:
// it says what was so when it was returned.
//
// It knows nothing of who may do what (daemon/auth, daemon/control), of configuration files or of the network. How a
// process is started and confined is package sandbox's business.
package job

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/daemon/jobid"
	"github.com/rtask/rtask/sandbox/spec"
)

// State is where a job is in its life.
type State string

// The states, in their order.
const (
	// Queued: accepted, not started.
	Queued State = "queued"
	// Running: its process runs, or is just being started.
	Running State = "running"
	// Stopping: it was told to stop and something of it is left.
	Stopping State = "stopping"
	// Ended: nothing of it is left.
	Ended State = "ended"

	// promised is a job that has ended and was pruned, with what Job.Promised needs of it. No Job that is returned has it.
	promised State = "promised"
)

// Job is one run of a task or a command. A Job is a snapshot: it does not change.
type Job struct {
	// ID is 16 characters a–z and 2–7, the first a letter.
	ID string `cbor:"id"`
	// Task is the task's name, empty for a command.
	Task string `cbor:"task,omitempty"`
	// Command is the executable as it was asked for, and Args what follows it.
	Command string   `cbor:"command"`
	Args    []string `cbor:"args,omitempty"`
	// User is the name, or the number, of the user it runs as.
	User string `cbor:"user"`
	// Owner started it.
	Owner Owner `cbor:"owner"`
	// Trigger is what it was started by: "local", "http", "webhook", OnFailure or OnSuccess.
	Trigger string `cbor:"trigger"`
	// By is the id of the job whose end started it, with the latter two.
	By string `cbor:"by,omitempty"`

	// OnFailure and OnSuccess are the tasks that its end starts. Triggered are those that it has, or while Owing is true is
	// to start.
	OnFailure []string    `cbor:"on_failure,omitempty"`
	OnSuccess []string    `cbor:"on_success,omitempty"`
	Triggered []Triggered `cbor:"triggered,omitempty"`
	Owing     bool        `cbor:"owing,omitempty"`

	// Into is the id of the job that took this request over, see Coalesce: then this is a record of an alias, which only ever
	// is seen as that job.
	Into string `cbor:"into,omitempty"`
	// Digest is Spec.Digest, and Promised is Spec.Promised.
	Digest   string    `cbor:"digest,omitempty"`
	Promised time.Time `cbor:"promised,omitzero"`
	// Reply is the beginning of what it wrote, once it was pruned before Promised.
	Reply *Reply `cbor:"reply,omitempty"`

	State State `cbor:"state"`
	// ProcessID is the PID of the main process, 0 before it runs.
	ProcessID int `cbor:"pid,omitempty"`
	// Unit is its scope, empty where there is no systemd; ControlGroup is the job's own below that.
	Unit         string `cbor:"unit,omitempty"`
	ControlGroup string `cbor:"control_group,omitempty"`
	// Slot is the id of the slot it was given to, and Boot the boot id (random(4)) of the machine at that time.
	Slot string `cbor:"slot,omitempty"`
	Boot string `cbor:"boot,omitempty"`

	QueuedAt  time.Time `cbor:"queued_at"`
	StartedAt time.Time `cbor:"started_at,omitzero"`
	EndedAt   time.Time `cbor:"ended_at,omitzero"`

	// Exit is how it ended, once it has; its Stdout and Stderr are not kept here.
	Exit *spec.Exit `cbor:"exit,omitempty"`

	// Once is Spec.Once.
	Once Once `cbor:"once,omitzero"`

	// Repeated says that Start, or Run, returned a job that there was already.
	Repeated bool `cbor:"-"`

	// Run is what the sandbox was asked to run.
	Run spec.Job `cbor:"run"`
	// Plan is how it was to be started.
	Plan Plan `cbor:"plan,omitzero"`
}

// Plan is what it takes to start a job later, be it by the next engine.
type Plan struct {
	// MaxConcurrent is Spec.MaxConcurrent, Keep Spec.Keep, and Volatile Spec.Volatile.
	MaxConcurrent int           `cbor:"max_concurrent,omitempty"`
	Keep          time.Duration `cbor:"keep,omitempty"`
	Volatile      bool          `cbor:"volatile,omitempty"`
	// Dynamic: its uid is the slot's, and so is its gid, unless Group is.
	Dynamic bool    `cbor:"dynamic,omitempty"`
	Group   *uint32 `cbor:"group,omitempty"`
	// Config is Spec.Config.
	Config string `cbor:"config,omitempty"`
	// Input is its standard input, until it was started. What is longer than a record should be is in a file.
	Input     []byte `cbor:"input,omitempty"`
	InputFile bool   `cbor:"input_file,omitempty"`
	// InputName is the name of that file, which has the form of an id; empty: the job's id.
	InputName string `cbor:"input_name,omitempty"`
	// Same is the hash of all that requests have in common that the job takes over while it waits; empty: it takes over none.
	Same string `cbor:"same,omitempty"`
}

// Owner is who started a job.
type Owner struct {
	// UID and Name of a local user.
	UID  uint32 `cbor:"uid"`
	Name string `cbor:"name,omitempty"`
	// Key is the id of the API key that was presented; then UID means nothing.
	Key string `cbor:"key,omitempty"`
}

// String names the owner for people: a user's name, or "key:NAME".
func (o Owner) String() string {
	if o.Key != "" {
		return "key:" + o.Name
	}
	return o.Name
}

// Succeeded reports whether the job has ended, with status 0 and by itself.
func (j Job) Succeeded() bool {
	return j.State == Ended && j.Exit != nil && j.Exit.Reason == spec.Succeeded
}

// Signal is the name of the signal that ended the main process, or "".
func (j Job) Signal() string {
	if j.Exit == nil || j.Exit.Signal == 0 {
		return ""
	}
	if name := unix.SignalName(unix.Signal(j.Exit.Signal)); name != "" {
		return name
	}
	return fmt.Sprintf("SIGRTMIN+%d", j.Exit.Signal-sigRTMin)
}

// sigRTMin is the first of the real-time signals as the C library counts them (signal(7)).
const sigRTMin = 34

// Spec is a job to start.
type Spec struct {
	// ID, if set, is the job's id. Start and Run of an id that there is return that job, if its task and owner are the same:
	// a caller that does not know whether it was heard asks again.
	ID string
	// Digest, if set, tells what is asked for from everything else: Start of an ID that there is with another one returns
	// ErrDifferent.
	Digest string
	// Promised is until when Start and Run of ID know the job, whatever becomes of its record meanwhile; the zero Time: for as long
	// as its record is kept. Otherwise are ids that the same request had at another time: where there is a job of one of
	// them that is still promised, that is the one.
	Promised  time.Time
	Otherwise []string
	Task      string
	Command   string
	Args      []string
	// Path is the executable; empty: Command, looked up in the PATH of Environment.
	Path string
	// Environment is added to, and wins over, the small clean set that each job has.
	Environment []string
	// Dir is the working directory; empty: "/".
	Dir string
	// User the job runs as; nil: a user of its own.
	User *User
	// Group, if set, is its group instead of the user's; Groups are further ones.
	Group  *uint32
	Groups []uint32
	// Input is its standard input.
	Input []byte
	// inputName is the name of the file that Input is in already, see keepLong.
	inputName string

	Owner   Owner
	Trigger string
	// OnFailure and OnSuccess are the tasks that its end starts; see StartTriggered.
	OnFailure, OnSuccess []string
	// by is the id of the job that triggers this one.
	by string
	// Once, if set, refuses the job while there is another of the same Once, until that has failed, with *RepeatError. No job with
	// it is Volatile.
	Once Once
	// Unique refuses the job while its owner runs the same command with the same arguments.
	Unique bool
	// Volatile jobs have a caller that waits, who is their record: nothing is committed to disk before they start.
	Volatile bool

	// Rate is how many jobs of the task may be started, in one second on average; 0: any number.
	Rate float64
	// MaxConcurrent is how many jobs of the task may run at once, 0: any number. Overflow says what becomes of one more, and
	// MaxQueue how many may wait. With spec.Coalesce a request for the same thing (see Same) that comes while a job waits
	// becomes part of that job, which takes its input and environment. The id that each of them gets is another one of that job.
	MaxConcurrent int
	Overflow      spec.Overflow
	MaxQueue      int
	// Same says, for Coalesce, what the request is for, such as a webhook, an event and a branch. Requests of one task, owner and
	// trigger with one value of it are for the same thing. Empty: for nothing that another one could be for, so it waits as with
	// Queue.
	Same string

	// Keep is how long the slot stays for another job of the task with the same Config, which names all that they share; 0:
	// the slot is this job's alone. Warm is how many slots of it are kept ready at any time (see Manager.SetTasks).
	Keep   time.Duration
	Warm   int
	Config string
	// Sandbox is how it is kept from others. DynamicUser and UserName are filled in by the Manager.
	Sandbox spec.Sandbox

	Limits spec.Limits
	// LimitsOptional goes on without limits that this machine cannot enforce.
	LimitsOptional bool
	// Timeout is how long it may run, 0: for ever. TimeoutStop is the time between KillSignal and SIGKILL.
	Timeout, TimeoutStop time.Duration
	KillSignal           unix.Signal
	RedirectStderr       bool
	// MaxReply is how much of each stream Result holds, in bytes; LogMax how much the log keeps, in bytes.
	MaxReply, LogMax int64
	Journal          bool
}

// single reports whether a job's slot is its alone.
func (p Plan) single() bool { return p.Keep <= 0 }

const idLength = jobid.Length

func newID() string { return jobid.New() }

func validID(s string) bool { return jobid.Valid(s) }

// sameCommand reports whether two jobs are duplicates: commands of one owner with the same arguments.
func sameCommand(a, b Job) bool {
	return a.Task == b.Task && a.Owner == b.Owner && a.Command == b.Command && slices.Equal(a.Args, b.Args)
}
