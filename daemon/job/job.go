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
// Inside, a start (start.go) has three steps, each with an owner and a file of its own:
//
//   - admitter (admit.go, coalesce.go, again.go): decides about a request, or finds the job that it is for;
//   - placer (place.go): puts a job on record and lends it a slot, or undoes its admission;
//   - runner (run.go): has it wait for its turn, launches and follows it (launcher, launch.go), and makes its end known and has that
//     recorded (ender and recorder, end.go, recorder.go). It also takes up the jobs of an earlier engine (recover.go).
//
// These use what lasts:
//
//   - roster (roster.go): the jobs in memory, and who of them has a turn (package admission), guarded by its lock;
//   - pool (pool.go, lease.go, warm.go, slot.go, uids.go): the slots, with a lock of its own;
//   - ledger (ledger.go, find.go, list.go): all jobs, by the roster and the records; each change of a record is a transaction.
//     Retention (retention.go, promise.go) bounds how long records and logs are kept;
//   - inputs (input.go): the files of inputs that are too long for a record;
//   - triggers (trigger.go): start the jobs that the ends of others start, further attempts (retry.go, rest.go) among them.
//
// The Manager (manager.go) connects all of them. Files use each other in one direction: none uses the Manager. Locks are taken in this
// order: a job's writing, the roster's, a job's (live.go), the pool's. Nothing waits for a commit of the records with one of them held,
// except a job's writing: a commit asks the roster whether a job has failed.
//
// It knows nothing of who may do what (daemon/auth, daemon/control), of configuration files or of the network. How a
// process is started and confined is package sandbox's business.
package job

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// Job is one run of a task or a command: what was asked for, as it was admitted, and what became of it. A Job is a snapshot: it
// does not change. As a record it is what later engines know of it.
type Job struct {
	Spec

	// User is the name, or the number, of the user it runs as.
	User string `cbor:"user"`
	// Triggered are the jobs that its end has started, or while Owing is true is to start.
	Triggered []Triggered `cbor:"triggered,omitempty"`
	Owing     bool        `cbor:"owing,omitempty"`

	// Into is the id of the job that took this request over, see Coalesce: then this is a record of an alias, which only ever
	// is seen as that job.
	Into string `cbor:"into,omitempty"`
	// Reply is the beginning of what it wrote, once it was pruned before Promised.
	Reply *Reply `cbor:"reply,omitempty"`

	State State `cbor:"state"`
	// Place is where it runs, or ran.
	spec.Place

	QueuedAt time.Time `cbor:"queued_at"`
	EndedAt  time.Time `cbor:"ended_at,omitzero"`

	// Exit is how it ended, once it has; its Stdout and Stderr are not kept here.
	Exit *spec.Exit `cbor:"exit,omitempty"`

	// Repeated says that Start, or Run, returned a job that there was already.
	Repeated bool `cbor:"-"`

	first // in records alone
}

// first is what the first engines look for beside Run. Every record has it, so that one of them, should it be installed again, knows
// whose each record is, and takes up the jobs that run and wait.
type first struct {
	FirstID      string `cbor:"id,omitempty"`
	FirstTask    string `cbor:"task,omitempty"`
	FirstCommand string `cbor:"command,omitempty"`
}

// upgrade makes a record that was read one of today: of aliases and promises the first records have no Run.
func upgrade(j *Job) {
	if j.ID == "" {
		j.ID, j.Task, j.Args = j.FirstID, j.FirstTask, []string{j.FirstCommand}
	}
	j.first = first{}
}

// downgrade is the opposite of upgrade.
func downgrade(j *Job) { j.first = first{j.ID, j.Task, j.Command()} }

// Reply is the beginning of what a job wrote.
type Reply struct {
	Stdout    []byte `cbor:"stdout,omitempty"`
	Stderr    []byte `cbor:"stderr,omitempty"`
	Truncated bool   `cbor:"truncated,omitempty"`
}

// Triggered is a job that the end of another one starts. Its id is chosen when that other job ends, and recorded with the
// end: whoever comes to start it, however often, starts a job of this id, and there can be only one.
type Triggered struct {
	// Task is what is started.
	Task string `cbor:"task"`
	// Job is its id.
	Job string `cbor:"job"`
	// Started says that it was started, whether it is still known or not.
	Started bool `cbor:"started,omitempty"`
	// Retry says that it is the next attempt of the other job.
	Retry bool `cbor:"retry,omitempty"`
}

// Owner is who started a job.
type Owner struct {
	// UID and Name of a local user.
	UID  uint32 `cbor:"uid"`
	Name string `cbor:"name,omitempty"`
	// Key is the id of the API key that was presented; then UID means nothing.
	Key string `cbor:"key,omitempty"`
	// Subject is the identity of a client on another machine. Then Name is the same, and UID is 0: an earlier engine takes the job for
	// root's, whose jobs it shows to administrators only.
	Subject string `cbor:"subject,omitempty"`
	// Identity is the URI of that client's certificate where Subject is something else, as a provider's user is. What is revoked is
	// known by it; owners are the same without it. The Owner that a Filter is asked about has none.
	Identity string `cbor:"identity,omitempty"`
}

// same reports whether two are one owner, whose certificates may be several.
func (o Owner) same(b Owner) bool {
	o.Identity, b.Identity = "", ""
	return o == b
}

// RemoteOwner is a client on another machine.
func RemoteOwner(subject string) Owner { return Owner{Subject: subject, Name: subject} }

// String names the owner for people: a user's name, or "key:NAME".
func (o Owner) String() string {
	if o.Key != "" {
		return "key:" + o.Name
	}
	return o.Name
}

// The triggers of jobs that the end of another job starts.
const (
	// OnFailure: the other job failed, and nobody had stopped it.
	OnFailure = "on_failure"
	// OnSuccess: the other job succeeded.
	OnSuccess = "on_success"
	// RetryTrigger: the other job was an attempt of the same task, and failed.
	RetryTrigger = "retry"
)

// Succeeded reports whether the job has ended, with status 0 and by itself.
func (j Job) Succeeded() bool {
	return j.State == Ended && j.Exit != nil && j.Exit.Succeeded()
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

// Spec is a job to start: what is to run, how it is let in, and whose it is.
type Spec struct {
	// Run is what is to run. Env is what is added to, and wins over, the small clean set that each job has; an empty Path is Args[0],
	// an empty Dir "/". The Manager fills in the rest: Credentials, Record, RecordAlways, what Sandbox and Limits imply here,
	// and an ID where it is empty. Start and Run with the ID of an existing job return that job, if its task and owner are the same:
	// a caller that got no answer asks again.
	spec.Run `cbor:"run"`
	// Terms are how it is let in.
	Terms `cbor:"plan,omitzero"`
	// As is who it runs as; nil: a user of its own. Groups are groups beside those of As.
	As     *User    `cbor:"-"`
	Groups []uint32 `cbor:"-"`

	// Owner starts it.
	Owner Owner `cbor:"owner"`
	// Trigger is what it is started by: "local", "remote", "http", "webhook", "schedule", "path", OnFailure, OnSuccess or RetryTrigger.
	Trigger string `cbor:"trigger"`
	// By is the id of the job whose end starts it, with the latter three. The Manager sets it.
	By string `cbor:"by,omitempty"`
	// Retry is what becomes of it after a failure.
	Retry Retry `cbor:"retry,omitzero"`
	// OnFailure and OnSuccess are the tasks that its end starts; see StartTriggered.
	OnFailure []string `cbor:"on_failure,omitempty"`
	OnSuccess []string `cbor:"on_success,omitempty"`

	// Digest, if set, identifies the request: Start with the ID of an existing job and another Digest returns ErrDifferent.
	Digest string `cbor:"digest,omitempty"`
	// Promised is until when Start and Run of ID know the job, whatever becomes of its record meanwhile; the zero Time: for as long
	// as its record is kept. Otherwise are ids that the same request had at another time: where there is a job of one of
	// them that is still promised, that is the one.
	Promised  time.Time `cbor:"promised,omitzero"`
	Otherwise []string  `cbor:"-"`
	// Once, if set, refuses the job while there is another of the same Once, until that has failed, with *RepeatError. No job with
	// it is Volatile.
	Once Once `cbor:"once,omitzero"`
}

// Once names something that is to be done once, until a time.
type Once struct {
	// Key is its name; "": it may be done any number of times.
	Key string `cbor:"key,omitempty"`
	// Until is when that is forgotten. It must be later than any time at which a repeat could still be let in.
	Until time.Time `cbor:"until,omitzero"`
	// At is the time at which the request was looked at: what holds then, holds for the request, however long it takes. The zero
	// Time: now.
	At time.Time `cbor:"-"`
	// Answer says that a repeat is answered with the existing job, if that is still on record, as when its ID is asked for
	// again.
	Answer bool `cbor:"-"`
}

// Terms are how a job is let in, and what it takes to start one later that waits, be it by the next engine.
type Terms struct {
	// Policy is that of its task. With spec.Coalesce a request for the same thing (see Same) that comes while a job waits becomes
	// part of that job, which takes its input and environment. The id that each of them gets is another one of that job.
	spec.Policy
	// Same says, for Coalesce, what the request is for, such as a webhook, an event and a branch. Requests of one task, owner and
	// trigger with one value of it are for the same thing. Empty: for nothing that another one could be for, so it waits as with
	// Queue. Of a Job it is the hash of all that they have in common.
	Same string `cbor:"same,omitempty"`
	// Unique refuses the job while its owner runs the same command with the same arguments.
	Unique bool `cbor:"-"`
	// Volatile jobs have a caller that waits, who is their record: nothing is committed to disk before they start.
	Volatile bool `cbor:"volatile,omitempty"`
	// Group, if set, is its group instead of its user's. Dynamic, which the Manager sets, says that its uid is the slot's, and so
	// is its gid, unless Group is set.
	Group   *uint32 `cbor:"group,omitempty"`
	Dynamic bool    `cbor:"dynamic,omitempty"`
	// Input is its standard input. Of a Job it is there until that was started; what is longer than a record should be is in a
	// file, whose name is InputName, or where that is empty the job's id. It has the form of an id.
	Input     []byte `cbor:"input,omitempty"`
	InputFile bool   `cbor:"input_file,omitempty"`
	InputName string `cbor:"input_name,omitempty"`
}

const idLength = jobid.Length

func newID() string { return jobid.New() }

func validID(s string) bool { return jobid.Valid(s) }

// sameCommand reports whether two jobs are duplicates: commands of one owner with the same arguments.
func sameCommand(a, b Job) bool {
	return a.Task == b.Task && a.Owner.same(b.Owner) && slices.Equal(a.Args, b.Args)
}

// share names the requester whose share of everything a job counts towards. An API key has one, a client on another machine, a local
// user, each webhook of each task, and what the ends of other jobs start, by task. All attempts of a job have that of the first.
func (j *Job) share() string {
	trigger := cmp.Or(j.Retry.Trigger, j.Trigger)
	switch {
	case j.Owner.Key != "":
		return "key/" + j.Owner.Key
	case j.Owner.Subject != "":
		return "remote/" + j.Owner.Subject
	case trigger == "local" || trigger == "":
		return "user/" + strconv.FormatUint(uint64(j.Owner.UID), 10)
	default:
		return strings.Join([]string{trigger, j.Task, j.Owner.Name}, "/")
	}
}
