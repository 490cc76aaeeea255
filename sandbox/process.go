package sandbox

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// defaultNoFile is the soft limit of open files where no manager says one: systemd's default, which keeps programs
	// that use select(2) right (https://0pointer.net/blog/file-descriptor-limits.html).
	defaultNoFile = 1024
	// startTimeout is how long a shim may take from its job to the job's first instruction. It is long because an
	// executable may lie on a slow network file system; and it is what ends the wait for one that never answers.
	startTimeout = 60 * time.Second
	// graceTime is how much later than the shim the engine ends a job whose time is up.
	graceTime = 5 * time.Second
	// goneTime is how long what was killed from outside may take to be gone.
	goneTime = 5 * time.Second
)

// Process is a job that runs, or has run.
type Process struct {
	spec.Place

	host *Host
	slot *Slot // nil: the job was over when it was found
	job  spec.Run

	mu    sync.Mutex // guards heard
	heard bool       // something of the job was heard, which first has, or nobody waits for that any more
	first chan wire.Message
	why   ending // guarded by Slot.mu; set when it was killed before it ran

	done chan struct{}
	exit spec.Exit // readable once done is closed
	left bool      // likewise: a process of the job could not be killed

	deadline deadline
}

// receive takes what the shim says. What is of another job is not for this one.
func (p *Process) receive(m wire.Message) {
	id := p.job.ID
	switch {
	case m.Started != nil && m.Started.Job == id:
	case m.Ended != nil && m.Ended.Job == id:
		select {
		case <-p.done: // told twice
		default:
			exit := *m.Ended
			if why, ok := p.killed(); ok && exit.Reason == spec.Signal && exit.Signal == int(unix.SIGKILL) {
				exit.Reason, exit.Detail = why.reason, why.detail
			}
			p.end(exit)
		}
	case m.Refused != nil && m.Refused.Job == id:
	default:
		return
	}
	if p.isFirst() {
		p.first <- m
	} else if m.Refused != nil {
		p.refused()
	}
}

// refused ends a job that its shim no longer has. The shim has written an exit record, or the job's end is unknown.
func (p *Process) refused() {
	select {
	case <-p.done:
		return
	default:
	}
	exit, err := ReadRecord(p.job.Record)
	if err != nil || exit.Job != p.job.ID {
		exit = spec.Exit{Job: p.job.ID, Reason: spec.Lost, Code: -1, Detail: "its supervisor does not know it any more", Ended: time.Now()}
	}
	p.end(exit)
}

// isFirst reports whether nothing was heard of the job before.
func (p *Process) isFirst() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.heard
	p.heard = true
	return first
}

// shimGone ends a job whose shim is not heard any more.
func (p *Process) shimGone() {
	if p.isFirst() {
		close(p.first) // its starter does the rest
		return
	}
	select {
	case <-p.done:
	default:
		p.end(p.remains())
	}
}

// answered waits for the shim to start its job, or to say why not. A shim that does not answer in time hangs in an exec that does not
// return: answered kills the job then, and if that does not help, the shim. A job that times out or is stopped during that time (halt
// receives by whom) gets graceTime more.
func (p *Process) answered(halt <-chan string) (wire.Message, error) {
	limit := p.slot.startTime()
	why := ending{spec.Setup, fmt.Sprintf("its program could not be started within %s", limit)}
	if t := p.job.Timeout + graceTime; p.job.Timeout > 0 && t < limit {
		limit, why = t, ending{spec.Timeout, "its time was up before its program was started"}
	}
	hasten := []func(){p.killJob, p.slot.kill, nil}
	for {
		t := time.NewTimer(limit)
		select {
		case m, ok := <-p.first:
			t.Stop()
			if !ok {
				return m, ErrShimGone
			}
			return m, nil
		case by := <-halt:
			t.Stop()
			halt = nil
			if len(hasten) == 3 {
				limit, why = min(limit, graceTime), ending{spec.Stopped, "stopped by " + by + " before its program was started"}
			}
			continue
		case <-t.C:
		}
		if len(hasten) == 3 {
			p.slot.mu.Lock()
			p.why = why
			p.slot.mu.Unlock()
		}
		if hasten[0] == nil {
			return wire.Message{}, errors.New("the job's supervisor does not answer and cannot be killed")
		}
		hasten[0]()
		hasten, limit = hasten[1:], goneTime
	}
}

// ending is why a job was killed that did not come to run its program.
type ending struct {
	reason spec.Reason
	detail string
}

// killed returns what is known of the end of a job that did not come to run, if that is why it was killed.
func (p *Process) killed() (ending, bool) {
	p.slot.mu.Lock()
	defer p.slot.mu.Unlock()
	return p.why, p.why.reason != spec.Succeeded
}

// began takes over what the shim said of a job that runs; nil: it has ended by now.
func (p *Process) began(m *wire.Started) {
	if m != nil {
		p.PID, p.ControlGroup, p.StartedAt = m.PID, m.ControlGroup, m.At
		p.arm()
	}
}

// arm sets the deadline of a job that has one.
func (p *Process) arm() {
	if p.job.Timeout > 0 && !p.StartedAt.IsZero() {
		p.deadline.set(time.Until(p.StartedAt.Add(p.job.Timeout+p.job.TimeoutStop+graceTime)), p.killJob)
	}
}

// remains finds out how a job ended whose shim is gone: from the record it wrote, or not at all.
func (p *Process) remains() spec.Exit {
	exit, err := ReadRecord(p.job.Record)
	if err == nil && exit.Job == p.job.ID {
		return exit
	}
	// Whatever the shim left must not go on unseen.
	detail := ErrShimGone.Error()
	if p.slot != nil {
		if empty, err := p.slot.clear(); err != nil {
			detail += "; " + err.Error()
		} else if !empty {
			p.left = true
			detail += "; " + unkillable
		}
	}
	return spec.Exit{Job: p.job.ID, Reason: spec.Lost, Code: -1, Detail: detail, Ended: time.Now()}
}

// ReadRecord reads the exit record that a shim wrote.
func ReadRecord(path string) (spec.Exit, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return spec.Exit{}, fmt.Errorf("cannot read the exit record: %w", err)
	}
	return spec.DecodeExit(b)
}

// end publishes how the job ended.
func (p *Process) end(exit spec.Exit) {
	p.deadline.clear()
	p.exit = exit
	close(p.done)
}

// Done is closed when nothing of the job is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the job ended. It may be called once Done is closed.
func (p *Process) Exit() spec.Exit { return p.exit }

// unkillable is part of a job's detail.
const unkillable = "a process of it could not be killed"

// Left reports whether a process of the job could not be killed. It may be called once Done is closed.
func (p *Process) Left() bool { return p.left }

// Slot is where the job runs, or nil for one that was over when it was found.
func (p *Process) Slot() *Slot { return p.slot }

// Stop asks the shim to end the job. It returns immediately; Done is closed when the job has ended.
func (p *Process) Stop(by string, kill bool) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	limit := graceTime
	if !kill {
		limit += p.job.TimeoutStop
	}
	p.deadline.set(limit, p.killJob)
	return p.slot.send(wire.Message{Stop: &wire.Stop{Job: p.job.ID, By: by, Kill: kill}})
}

// Release tells the shim that the end of the job is recorded, so that it need not be kept there. It may be called once Done
// is closed.
func (p *Process) Release() {
	if p.slot != nil {
		// A shim that cannot be told has ended by itself.
		_ = p.slot.send(wire.Message{Ack: &wire.Ack{Job: p.job.ID}})
	}
}
