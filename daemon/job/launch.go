package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// launcher starts the processes of jobs that are placed, and follows them. It has no lock of its own: the job's lock guards what it
// changes of a job. It does not know the queue.
type launcher struct {
	opts    *Options
	records *ledger
	pool    *pool
	inputs  inputs
	null    *os.File // the standard input of jobs without one
	euid    int      // the engine's own user
	quit    <-chan struct{}
}

// errPutOff is returned by launch for a job that is left to the next engine. This engine reports nothing more about it.
var errPutOff = errors.New("the next engine starts it")

// launch starts the process of a job that has its slot. If the job could not be started, or ended without having run, launch returns
// its end, so that the caller of Start sees it. Otherwise the caller of launch follows the job.
func (x *launcher) launch(ctx context.Context, l *live) (*spec.Exit, error) {
	p, err := x.process(ctx, l)
	if err != nil && x.putOff(ctx, l) {
		return nil, errPutOff
	}
	if err != nil {
		if l.slot != nil {
			x.pool.spoil(l.slot)
		}
		close(l.ready)
		return setupFailed(l, err), nil
	}
	l.proc, l.input = p, nil
	l.mu.Lock()
	j := &l.job
	j.Place = p.Place
	before := l.job
	if j.Retry.Lost = j.Retry.again() && j.InputFile; j.InputFile || !j.Retry.again() {
		j.Input, j.InputFile = nil, false
	}
	if !j.Volatile {
		x.records.PutSoon(*j)
	}
	stop := l.stop
	l.mu.Unlock()
	x.inputs.drop(&before)
	close(l.ready)
	if stop != nil { // the client that stopped it may be gone
		x.stop(l, *stop)
	}
	if p.PID != 0 {
		return nil, nil
	}
	exit := p.Exit()
	return &exit, nil
}

// setupFailed is the end of a job that could not be started.
func setupFailed(l *live, cause error) *spec.Exit {
	return &spec.Exit{Job: l.snapshot().ID, Reason: spec.Setup, Code: -1, Detail: cause.Error(), Ended: time.Now()}
}

// stop has the shim of a job that was launched stop it.
func (x *launcher) stop(l *live, o StopOptions) {
	if l.proc == nil {
		return
	}
	if err := l.proc.Stop(o.By, o.Kill); err != nil {
		x.opts.Logger.Warn("job's supervisor could not be told to stop it", "job", l.snapshot().ID, "error", err)
	}
}

// putOff leaves a job for the next engine whose slot could not be opened because the machine, or this engine, is going down.
func (x *launcher) putOff(ctx context.Context, l *live) bool {
	j := l.snapshot()
	unsent := l.slot != nil && !x.pool.isOpen(l.slot) && !j.Volatile
	if !unsent || !isClosed(x.quit) && !x.opts.Host.GoingDown(ctx) {
		return false
	}
	j.State, j.Place = Queued, spec.Place{}
	x.pool.end(l.slot, nil)
	if err := x.records.Put(ctx, j); err != nil {
		x.opts.Logger.Error("cannot put off a job", "job", j.ID, "error", err)
	}
	return true
}

// process opens what a process needs and starts it, in another slot if its own has become unfit.
func (x *launcher) process(ctx context.Context, l *live) (*sandbox.Process, error) {
	stdin := x.null
	if len(l.input) > 0 {
		f, err := wire.SealedFile("rtask-input", l.input)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		stdin = f
	}
	j := l.snapshot()
	logFile, err := makeLog(x.opts.logPath(j.ID))
	if err != nil {
		return nil, fmt.Errorf("cannot make the job's log: %w", err)
	}
	defer logFile.Close()
	if x.euid == 0 { // other users already own what they make
		if err := groupOfFolder(logFile, x.opts.LogDir); err != nil {
			return nil, err
		}
	}
	for range startAttempts {
		s := l.slot
		if s.open == nil {
			if err := x.pool.open(ctx, s, &j); err != nil {
				return nil, err
			}
			if s.unit != j.Unit { // its name was taken
				j = l.change(func(j *Job) { j.Unit = s.unit })
				if err := x.records.record(ctx, l); err != nil {
					return nil, err
				}
			}
		}
		var memo []byte // of a volatile job, which has no record
		if j.Volatile {
			if memo, err = x.records.Encode(j); err != nil {
				return nil, err
			}
		}
		p, err := s.open.Start(&j.Run, stdin, logFile, memo, l.halt)
		if !errors.Is(err, sandbox.ErrUnfit) {
			return p, err
		}
		if err := x.moveOn(ctx, l); err != nil {
			return nil, err
		}
		j = l.snapshot()
	}
	return nil, fmt.Errorf("cannot start the job: %w", sandbox.ErrUnfit)
}

// moveOn gives a job a new slot in place of one that takes no job any more, and writes that down.
func (x *launcher) moveOn(ctx context.Context, l *live) error {
	j := l.snapshot()
	key := slotKey(&j)
	x.pool.end(l.slot, nil)
	if err := x.pool.leaseTo(l, key); err != nil {
		return err
	}
	return x.records.record(ctx, l)
}

// follow waits for a job to end, and returns how it did. It returns false when the engine ends before.
func (x *launcher) follow(l *live) (spec.Exit, bool) {
	describe := time.NewTimer(describeAfter)
	defer describe.Stop()
	for {
		select {
		case <-l.proc.Done():
			return l.proc.Exit(), true
		case <-describe.C:
			x.describe(l)
		case <-x.quit:
			if s := l.proc.Slot(); s != nil {
				s.Leave()
			}
			return spec.Exit{}, false
		}
	}
}

// describe names the scope of a job for it. It is called once for a job, so that the follower's stack has no job on it.
//
//go:noinline
func (x *launcher) describe(l *live) {
	if l.slot != nil {
		j := l.snapshot()
		x.pool.describe(l.slot, &j)
	}
}

// describeAfter is how long a job runs before its scope is renamed for it. That is a call to systemd, which short jobs can do without.
const describeAfter = time.Second

// makeLog makes an empty log to append to.
func makeLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW, 0o640)
}

// groupOfFolder gives a new log to the group of its folder: users who may list the logs may read them.
func groupOfFolder(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at the folder of the logs: %w", err)
	}
	if err := f.Chown(-1, int(info.Sys().(*syscall.Stat_t).Gid)); err != nil {
		return fmt.Errorf("cannot give the job's log to a group: %w", err)
	}
	return nil
}
