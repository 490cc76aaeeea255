package shim

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/jail"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	priorityInfo    = 6 // LOG_INFO, syslog(3)
	priorityWarning = 4 // LOG_WARNING

	// drainTime is how long the rest of a job may go on writing after its main process has ended: enough for a
	// `| tee` to finish, not enough for a daemon to be noticed.
	drainTime = 200 * time.Millisecond
	// killTime is how long the kernel may take to remove killed processes. What hangs in the kernel for longer (a dead
	// network file system) is reported and left.
	killTime = 30 * time.Second

	// protectedScore keeps the kernel's OOM killer from the shim (proc_pid_oom_score_adj(5)).
	protectedScore = "-900"
)

// job is one run.
type job struct {
	*shim
	spec    *spec.Job
	tree    tree
	main    *jail.Process
	journal *journal
	started wire.Started

	cause     spec.Reason // Stopped or Timeout once somebody or something ended it
	by        string
	killTimer *time.Timer
}

// run runs one job to its end and reports it.
func (s *shim) run(start *wire.Start, stdin, logFile *os.File) error {
	j := &job{shim: s, spec: &start.Job, killTimer: time.NewTimer(0)}
	if !j.killTimer.Stop() {
		<-j.killTimer.C
	}
	j.journal = j.openJournal()
	w := log.NewWriter(logFile, j.spec.LogMax, time.Now)
	exit := j.execute(start, stdin, w)
	exit.Job = j.spec.ID
	exit.LogBytes, exit.LogDropped = w.Stats()
	exit.LogBytes += exit.LogDropped
	j.journal.send([]byte("Job "+exit.Job+" "+outcome(exit)), endPriority(exit), field{"MESSAGE_ID", messageEnded},
		field{"RTASK_STATUS", status(exit)}, field{"RTASK_REASON", string(exit.Reason)})
	if n := j.journal.close(); n > 0 {
		exit.Detail = strings.TrimPrefix(fmt.Sprintf("%s; %d lines did not reach the journal", exit.Detail, n), "; ")
	}
	if err := w.Close(); err != nil {
		exit.Detail = strings.TrimPrefix(exit.Detail+"; "+err.Error(), "; ")
	}
	return j.report(exit)
}

// execute is the job's life between its start and the moment nothing of it is left.
func (j *job) execute(start *wire.Start, stdin *os.File, w *log.Writer) *spec.Exit {
	out, err := j.start(start, stdin, w)
	if err != nil {
		exit := &spec.Exit{Reason: spec.Setup, Code: -1, Detail: err.Error(), Ended: time.Now()}
		var e *jail.SetupError
		switch {
		case errors.As(err, &e) && e.NotFound:
			exit.Code = 127
		case errors.As(err, &e) && e.NotExecutable:
			exit.Code = 126
		}
		if j.tree != nil {
			exit.Detail = strings.Join(append([]string{exit.Detail}, texts(j.tree.Remove())...), "; ")
		}
		return exit
	}
	j.journal.send([]byte("Started job "+j.spec.ID), priorityInfo, field{"MESSAGE_ID", messageStarted})
	j.tell(wire.Message{Started: &j.started})
	return j.finish(j.supervise(), out)
}

// start starts the main process. What it made is gone when it fails, but for the tree.
func (j *job) start(start *wire.Start, stdin *os.File, w *log.Writer) (out *output, err error) {
	defer stdin.Close()
	if start.Socket != "" {
		if err := j.listen(start.Socket); err != nil {
			return nil, err
		}
	}
	if start.ControlGroup != "" {
		t, err := cgroup.Delegated(start.Mount, start.ControlGroup)
		if err != nil {
			return nil, err
		}
		g, err := t.New("job-"+j.spec.ID, j.spec.Limits, j.spec.LimitsOptional)
		if err != nil {
			return nil, err
		}
		j.tree = g
	} else if j.tree, err = newDescendants(); err != nil {
		return nil, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if c := j.spec.Credentials; c != nil {
		uid, gid = int(c.UID), int(c.GID)
	}
	out, stdout, stderr, err := newOutput(w, j.journal, j.spec.RedirectStderr, j.spec.MaxReply, uid, gid)
	if err != nil {
		return nil, err
	}
	score, err := protect()
	if err == nil {
		j.main, err = jail.Start(j.spec, jail.Stdio{In: stdin, Out: stdout, Err: stderr}, jail.Options{
			CgroupFD:    j.tree.FD(),
			NoFile:      unix.Rlimit{Cur: start.NoFileSoft, Max: start.NoFileHard},
			OOMScoreAdj: score,
		})
	}
	_ = stdout.Close() // nothing was written through the shim's own copy
	if stderr != stdout {
		_ = stderr.Close() // likewise
	}
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	j.started = wire.Started{Job: j.spec.ID, PID: j.main.PID, ControlGroup: j.tree.Path(), At: time.Now()}
	return out, nil
}

// protect keeps the OOM killer from the shim and returns the score that the job is to have: the one from before. Without
// the privilege to do so both stay as they are.
func protect() (*string, error) {
	const path = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the OOM score: %w", err)
	}
	if err := os.WriteFile(path, []byte(protectedScore), 0); err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return nil, nil
		}
		return nil, fmt.Errorf("cannot set the OOM score: %w", err)
	}
	score := strings.TrimSpace(string(b))
	return &score, nil
}

// supervise waits for the main process, and meanwhile does what the engine, the clock and systemd ask for.
func (j *job) supervise() unix.WaitStatus {
	ended := make(chan unix.WaitStatus, 1)
	j.workers.Go(func() { ended <- wait(j.main.PID) })
	var timeout <-chan time.Time
	if j.spec.Timeout > 0 {
		t := time.NewTimer(j.spec.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	for {
		select {
		case ws := <-ended:
			return ws
		case ev := <-j.events:
			j.handle(ev)
		case sig := <-j.signals:
			j.stop(spec.Stopped, sig.String()+" to its supervisor", false)
		case <-timeout:
			j.stop(spec.Timeout, "", false)
		case <-j.killTimer.C:
			j.kill()
		}
	}
}

// wait waits for a child that nobody else waits for.
func wait(pid int) unix.WaitStatus {
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			if err != nil {
				// Not a status that could be mistaken for success: "killed by signal 0" is none.
				return unix.WaitStatus(0xffff)
			}
			return ws
		}
	}
}

// handle does what an engine asks for while the job runs.
func (j *job) handle(ev event) {
	for _, f := range ev.files {
		_ = f.Close() // no message but the first brings any
	}
	switch {
	case ev.err != nil:
		if ev.conn == j.conn {
			j.conn = nil
		}
	case ev.message.Hello != nil && ev.message.Hello.Job == j.spec.ID:
		j.conn = ev.conn
		j.tell(wire.Message{Started: &j.started})
	case ev.message.Stop != nil:
		j.stop(spec.Stopped, ev.message.Stop.By, ev.message.Stop.Kill)
	}
}

// stop asks the job to end, and sees to it that it does. The first cause is the one that is reported.
func (j *job) stop(cause spec.Reason, by string, kill bool) {
	first := j.cause == spec.Succeeded
	if first {
		j.cause, j.by = cause, by
	}
	if kill || j.spec.TimeoutStop <= 0 {
		j.kill()
		return
	}
	if !first {
		return
	}
	j.killTimer.Reset(j.spec.TimeoutStop)
	// A process that was stopped gets the signal once it runs again, as in systemd.kill(5).
	if err := errors.Join(j.tree.Signal(unix.Signal(j.spec.KillSignal)), j.tree.Signal(unix.SIGCONT)); err != nil {
		j.journal.send([]byte(err.Error()), priorityWarning)
	}
}

func (j *job) kill() {
	if err := j.tree.Kill(); err != nil {
		j.journal.send([]byte(err.Error()), priorityWarning)
	}
}

// finish removes what the main process left, and puts together how the job ended.
func (j *job) finish(ws unix.WaitStatus, out *output) *spec.Exit {
	j.killTimer.Stop()
	_ = j.main.PIDFD.Close() // a pidfd has nothing to lose
	exit := &spec.Exit{Code: -1}
	var problems []string
	if j.cause == spec.Succeeded {
		out.wait(drainTime)
	}
	problems = append(problems, texts(j.tree.Kill())...)
	empty, err := j.tree.WaitEmpty(killTime)
	problems = append(problems, texts(err)...)
	exit.Ended = time.Now()
	if !empty {
		problems = append(problems, "a process of it could not be killed")
	}
	if !out.wait(drainTime) {
		problems = append(problems, "a process outside of it holds its output")
	}
	problems = append(problems, texts(out.close())...)
	exit.Usage = j.tree.Usage()
	oom := j.tree.OOMKilled()
	if empty {
		problems = append(problems, texts(j.tree.Remove())...)
	}
	exit.Stdout, exit.Truncated = out.stdout.reply, out.stdout.truncated
	if out.stderr != nil {
		exit.Stderr, exit.Truncated = out.stderr.reply, exit.Truncated || out.stderr.truncated
	}
	switch {
	case ws.Exited():
		exit.Code = ws.ExitStatus()
		if exit.Code != 0 {
			exit.Reason = spec.ExitCode
		}
	case ws.Signaled():
		exit.Signal = int(ws.Signal())
		exit.Reason = spec.Signal
		if oom && ws.Signal() == unix.SIGKILL {
			exit.Reason = spec.OOM
		}
	default:
		exit.Reason = spec.Lost
		problems = append(problems, "its exit status could not be read")
	}
	if j.cause != spec.Succeeded && exit.Reason != spec.OOM {
		exit.Reason = j.cause
	}
	if j.cause == spec.Stopped && j.by != "" {
		problems = append([]string{"stopped by " + j.by}, problems...)
	}
	exit.Detail = strings.Join(problems, "; ")
	return exit
}

func texts(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// report hands the end of the job to the engine, or to the disk.
func (j *job) report(exit *spec.Exit) error {
	recorded := false
	if j.spec.RecordAlways {
		if err := writeRecord(j.spec.Record, exit); err != nil {
			exit.Detail = strings.TrimPrefix(exit.Detail+"; "+err.Error(), "; ")
		} else {
			recorded = true
		}
	}
	j.tell(wire.Message{Ended: exit})
	if j.acknowledged(exit) || recorded {
		return nil
	}
	return writeRecord(j.spec.Record, exit)
}

// acknowledged waits for the engine to have taken over the end of the job.
func (j *job) acknowledged(exit *spec.Exit) bool {
	t := time.NewTimer(ackTimeout)
	defer t.Stop()
	for j.conn != nil {
		select {
		case ev := <-j.events:
			switch {
			case ev.err != nil && ev.conn == j.conn:
				j.conn = nil
			case ev.message.Hello != nil && ev.message.Hello.Job == j.spec.ID:
				j.conn = ev.conn
				j.tell(wire.Message{Ended: exit})
			case ev.message.Ack != nil && ev.message.Ack.Job == exit.Job:
				return true
			}
		case <-t.C:
			return false
		}
	}
	return false
}

func (j *job) openJournal() *journal {
	if !j.spec.Journal {
		return nil
	}
	return openJournal([]field{
		{"SYSLOG_IDENTIFIER", j.spec.Identifier},
		{"RTASK_JOB_ID", j.spec.ID},
		{"RTASK_TASK", j.spec.Task},
	})
}

func status(e *spec.Exit) string {
	if e.Reason == spec.Succeeded {
		return "success"
	}
	return "failure"
}

func endPriority(e *spec.Exit) int {
	if e.Reason == spec.Succeeded {
		return priorityInfo
	}
	return priorityWarning
}

// outcome says in a few words how a job ended.
func outcome(e *spec.Exit) string {
	switch e.Reason {
	case spec.Succeeded:
		return "succeeded"
	case spec.ExitCode:
		return fmt.Sprintf("failed with exit status %d", e.Code)
	case spec.Signal:
		return "was ended by " + unix.SignalName(unix.Signal(e.Signal))
	case spec.Timeout:
		return "timed out"
	case spec.OOM:
		return "was killed at its memory limit"
	case spec.Stopped:
		return "was stopped"
	case spec.Setup:
		return "could not be started: " + e.Detail
	default:
		return "ended with " + string(e.Reason)
	}
}
