package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// drainTime is how long the rest of a job may go on writing after its main process has ended: enough for a
	// `| tee` to finish, not enough for a daemon to be noticed.
	drainTime = 200 * time.Millisecond
	// killTime is how long the kernel may take to remove killed processes. What hangs in the kernel for longer (a dead
	// network file system) is reported and left.
	killTime = 30 * time.Second
	// The shortest and the longest time between two kills of processes that do not die.
	firstKill, lastKill = 10 * time.Millisecond, time.Second
)

// job is one run.
type job struct {
	*shim
	spec    *spec.Run
	tree    tree
	main    *jail.Process
	journal *journal
	started wire.Started

	cause     spec.Reason // Stopped or Timeout once a caller or the clock ended it
	by        string
	killTimer *time.Timer
}

// run runs one job to its end and reports it.
func (s *shim) run(start *wire.Start, stdin, logFile *os.File) {
	// An engine looks for a job that was taken at this socket, so listen first.
	listening := s.listen(start.Socket)
	err := take(start.Claim)
	if errors.Is(err, fs.ErrNotExist) {
		closeFiles([]*os.File{stdin, logFile})
		s.refuse(s.conn, start.Job.ID)
		return
	}
	j := &job{shim: s, spec: &start.Job, killTimer: time.NewTimer(0)}
	j.killTimer.Stop() // from here on nothing comes from it before it is set
	j.journal = j.openJournal()
	w := log.NewWriter(logFile, j.spec.LogMax, time.Now)
	exit := j.execute(start, stdin, w, errors.Join(listening, err))
	exit.Job = j.spec.ID
	exit.LogBytes, exit.LogDropped = w.Stats()
	exit.LogBytes += exit.LogDropped
	message, fields := "Job "+exit.Job+" "+outcome(exit), []field{{"MESSAGE_ID", messageEnded}, {"RTASK_STATUS", exit.Status()}, {"RTASK_REASON", string(exit.Reason)}}
	if exit.LeftProcesses > 0 {
		message += "; " + leftText(exit.LeftProcesses)
		fields = append(fields, field{"RTASK_LEFT_PROCESSES", strconv.Itoa(exit.LeftProcesses)})
	}
	j.journal.send([]byte(message), endPriority(exit), fields...)
	if n := j.journal.close(); n > 0 {
		_ = s.journald.Close() // the next job tries another one: journald may have come back
		s.journald = nil
		exit.Detail = strings.TrimPrefix(fmt.Sprintf("%s; %d lines did not reach the journal", exit.Detail, n), "; ")
	}
	var synced error
	if j.spec.RecordAlways {
		// Before its end is on record: if the record survives a power cut, so does all that the job wrote. Syncing a new file puts
		// its name on disk, too, on ext4, XFS and Btrfs.
		synced = w.Sync()
	}
	if exit.LogBytes == 0 {
		s.spent = append(s.spent, logFile)
	} else {
		synced = errors.Join(synced, w.Close())
	}
	if synced != nil {
		exit.Detail = strings.TrimPrefix(exit.Detail+"; "+synced.Error(), "; ")
	}
	s.report(j.spec, exit)
	if !start.Last && !s.unfit {
		s.renew(j.spec)
	}
	// Last of all, so that no caller waits for it. Nothing was written to them.
	closeFiles(s.spent)
	s.spent = s.spent[:0]
}

// take takes the job that the file at path stands for. It returns fs.ErrNotExist if an engine took it back.
func take(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Rename(path, path+wire.Taken); err != nil {
		return fmt.Errorf("cannot take the job: %w", err)
	}
	return nil
}

// execute is the job's life between its start and the moment nothing of it is left.
func (j *job) execute(start *wire.Start, stdin *os.File, w *log.Writer, err error) *spec.Exit {
	var out *output
	if err == nil {
		out, err = j.start(start, stdin, w)
	}
	_ = stdin.Close() // nothing was written to it
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
			empty, problems := j.clear()
			problems = append(problems, texts(j.tree.Remove())...)
			exit.Detail = strings.Join(append([]string{exit.Detail}, problems...), "; ")
			j.unfit = j.unfit || !empty
		}
		return exit
	}
	j.journal.send([]byte("Started job "+j.spec.ID), priorityInfo, field{"MESSAGE_ID", messageStarted})
	out.run()
	j.tell(wire.Message{Started: &j.started})
	return j.finish(j.supervise(), out)
}

// start starts the main process. What it made is gone when it fails, but for the tree.
func (j *job) start(start *wire.Start, stdin *os.File, w *log.Writer) (out *output, err error) {
	place, err := j.settle(start)
	if err != nil {
		return nil, err
	}
	if place.groups != nil {
		g, err := place.groups.New("job-"+j.spec.ID, j.spec.Limits, j.spec.LimitsOptional)
		if err != nil {
			return nil, err
		}
		j.tree = g
	} else {
		j.tree = newDescendants()
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if c := j.spec.Credentials; c != nil {
		uid, gid = int(c.UID), int(c.GID)
	}
	out, stdout, stderr, err := newOutput(w, j.journal, &j.buffers, j.spec.RedirectStderr, j.spec.MaxReply, uid, gid)
	if err != nil {
		return nil, err
	}
	j.main, err = jail.Start(j.spec, jail.Stdio{In: stdin, Out: stdout, Err: stderr}, jail.Options{
		CgroupFD:    j.tree.FD(),
		Room:        place.room,
		Filters:     place.filters,
		NoFile:      unix.Rlimit{Cur: start.NoFileSoft, Max: start.NoFileHard},
		OOMScoreAdj: place.score,
		Ignored:     place.ignored,
	})
	_ = stdout.Close() // nothing was written through the shim's own copy
	if stderr != stdout {
		_ = stderr.Close() // likewise
	}
	if err != nil {
		out.run() // to its end, which is here
		err = errors.Join(err, out.close())
		j.spent = append(j.spent, out.pipes...)
		return nil, err
	}
	j.started = wire.Started{Job: j.spec.ID, PID: j.main.PID, ControlGroup: j.tree.Path(), At: time.Now()}
	return out, nil
}

// supervise waits for the main process. Until then it does what the engine, the clock and systemd ask for. If the job was asked to end,
// other processes of the job have the rest of its time to end, too.
func (j *job) supervise() unix.WaitStatus {
	ended := make(chan unix.WaitStatus, 1)
	j.workers.Go(func() { ended <- j.wait() })
	var timeout <-chan time.Time
	if j.spec.Timeout > 0 {
		t := time.NewTimer(j.spec.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	var ws unix.WaitStatus
	var empty <-chan struct{}
	for {
		due, enough := j.due()
		select {
		case ws = <-ended:
			j.stoppedOutside(ws)
			if j.cause == spec.Succeeded {
				enough()
				return ws
			}
			empty = j.emptied()
		case <-empty:
			enough()
			return ws
		case ev := <-j.events:
			j.attend(ev)
		case <-due:
			j.writePending()
		case <-j.signals:
			j.outside()
		case <-timeout:
			j.stop(spec.Timeout, "", false)
		case <-j.killTimer.C:
			j.kill()
		}
		enough()
	}
}

// emptied returns a channel that is closed when nothing of the job is left, or when it should have been killed by now.
func (j *job) emptied() <-chan struct{} {
	c := make(chan struct{})
	j.workers.Go(func() {
		defer close(c)
		_, _ = j.tree.WaitEmpty(j.spec.TimeoutStop + lastKill) // finish looks again, and reports it
	})
	return c
}

// outside stops the job because of a signal to all of its scope: `systemctl stop`, or the machine's shutdown. The scope is to
// end, so there is no other job here.
func (j *job) outside() {
	j.unfit = true
	j.stop(spec.Stopped, "a signal from outside rtask (systemctl stop?)", false)
}

// signalTime is how much later than the job the shim may get the signal that systemd sends to all of a scope.
const signalTime = 50 * time.Millisecond

// stoppedOutside stops what is left of the job if the main process ended by a signal that the shim got, too: then it was
// a stop of the whole scope.
func (j *job) stoppedOutside(ws unix.WaitStatus) {
	var limit time.Duration // just look
	if ws.Signaled() && ws.Signal() == unix.SIGTERM || ws.Exited() && ws.ExitStatus() == 128+int(unix.SIGTERM) {
		limit = signalTime
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-j.signals:
		j.outside()
		return
	default:
	}
	if j.cause != spec.Succeeded {
		return
	}
	select {
	case <-j.signals:
		j.outside()
	case <-t.C:
	}
}

// wait waits for the main process. Nothing else in the shim does.
func (j *job) wait() unix.WaitStatus {
	if j.tree.FD() < 0 {
		return waitAll(j.main.PID)
	}
	// Asleep in the runtime's poller and not in a thread of its own: a pidfd is readable once its process has ended.
	lost := unix.WaitStatus(0xffff) // not a status that could be mistaken for success: "killed by signal 0" is none
	raw, err := j.main.PIDFD.SyscallConn()
	if err != nil {
		return waitAll(j.main.PID)
	}
	ws := lost
	err = raw.Read(func(uintptr) bool {
		got, err := unix.Wait4(j.main.PID, &ws, unix.WNOHANG, nil)
		if err != nil {
			ws = lost
		}
		return got != 0
	})
	if err != nil {
		return waitAll(j.main.PID) // it cannot be polled
	}
	return ws
}

// waitAll waits for a child. On the way it reaps the orphans that a subreaper is given.
func waitAll(pid int) unix.WaitStatus {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return unix.WaitStatus(0xffff) // as above
		case got == pid:
			return ws
		}
	}
}

// attend does what an engine asks for while the job runs.
func (j *job) attend(ev event) {
	switch m := ev.message; {
	case m.Hello != nil && m.Hello.Job == j.spec.ID:
		closeFiles(ev.files)
		j.conn = ev.conn
		j.tell(wire.Message{Started: &j.started})
	case m.Stop != nil:
		closeFiles(ev.files)
		if m.Stop.Job == "" || m.Stop.Job == j.spec.ID {
			j.stop(spec.Stopped, m.Stop.By, m.Stop.Kill)
		}
	case j.handle(ev):
	case m.Start != nil: // one at a time
		j.refuse(ev.conn, m.Start.Job.ID)
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
	if err := errors.Join(j.tree.Signal(j.spec.KillSignal), j.tree.Signal(unix.SIGCONT)); err != nil {
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
	exit := &spec.Exit{}
	if j.cause == spec.Succeeded {
		out.wait(drainTime)
		exit.LeftProcesses = j.left()
	}
	empty, problems := j.clear()
	exit.Ended = time.Now()
	out.wait(drainTime)
	problems = append(problems, texts(out.close())...)
	j.spent = append(append(j.spent, out.pipes...), j.main.PIDFD)
	if empty && !out.ended() {
		problems = append(problems, "a process outside of it holds its output")
	}
	exit.Usage = j.tree.Usage()
	oom := j.tree.OOMKilled()
	if empty {
		problems = append(problems, texts(j.tree.Remove())...)
	}
	j.unfit = j.unfit || !empty || !out.ended()
	exit.Stdout, exit.Truncated = out.stdout.reply, out.stdout.truncated
	if out.stderr != nil {
		exit.Stderr, exit.Truncated = out.stderr.reply, exit.Truncated || out.stderr.truncated
	}
	judge(exit, ws, oom)
	if exit.Reason == spec.Lost {
		problems = append(problems, "its exit status could not be read")
	}
	if j.cause != spec.Succeeded && exit.Reason != spec.OOM {
		exit.Reason = j.cause
	}
	if j.cause == spec.Stopped && j.by != "" {
		problems = append([]string{"stopped by " + j.by}, problems...)
	}
	if exit.LeftProcesses > 0 {
		problems = append([]string{leftText(exit.LeftProcesses)}, problems...)
	}
	exit.Detail = strings.Join(problems, "; ")
	return exit
}

// left returns how many processes the main process left behind.
func (j *job) left() int {
	if empty, err := j.tree.WaitEmpty(0); empty || err != nil {
		return 0 // clear reports the error
	}
	n, err := j.tree.Count()
	if err != nil {
		return 0 // it is a hint for people, and nothing hangs on it
	}
	return n
}

// judge says how the main process ended.
func judge(exit *spec.Exit, ws unix.WaitStatus, oom bool) {
	exit.Code = -1
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
	}
}

// clear kills what is left of the job until nothing is, and says what stood in the way.
func (j *job) clear() (empty bool, problems []string) {
	deadline := time.Now().Add(killTime)
	empty, err := j.tree.WaitEmpty(0)
	for again := firstKill; !empty && err == nil; again = min(2*again, lastKill) {
		killed := j.tree.Kill()
		if empty, err = j.tree.WaitEmpty(again); !empty && err == nil && time.Now().After(deadline) {
			err = errors.Join(errors.New("a process of it could not be killed"), killed)
		}
	}
	return empty, texts(err)
}

func texts(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func (j *job) openJournal() *journal {
	if !j.spec.Journal {
		return nil
	}
	if s := j.shim; s.journald == nil {
		s.journald = dialJournal()
	}
	return openJournal(j.journald, []field{
		{"SYSLOG_IDENTIFIER", j.spec.Identifier()},
		{"RTASK_JOB_ID", j.spec.ID},
		{"RTASK_TASK", j.spec.Task},
	})
}
