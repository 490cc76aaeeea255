package shim

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/jail"
	"github.com/rtask/rtask/sandbox/privilege"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// protectedScore keeps the kernel's OOM killer from the shim (proc_pid_oom_score_adj(5)).
	protectedScore = "-900"
	// maxLeft is how much memory a job may leave charged to the scope of a limited slot, in bytes: well within the scope's
	// headroom, so that the next job has all of its own.
	maxLeft = 1 << 20
	// reclaimTime is how long the kernel may take to take the rest back. A new slot costs less than a longer wait would.
	reclaimTime = 200 * time.Millisecond
)

// settle makes what there is not yet of the shim's place.
func (s *shim) settle(start *wire.Start) (*place, error) {
	p := s.place
	if p == nil {
		p = &place{}
		if start.ControlGroup == "" {
			// So that an orphan becomes this process's child and not init's.
			if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
				return nil, fmt.Errorf("cannot become a child subreaper: %w", err)
			}
		} else {
			var err error
			if p.groups, err = cgroup.Delegated(start.Mount, start.ControlGroup); err != nil {
				return nil, err
			}
		}
		var err error
		if p.score, err = protect(); err != nil {
			return nil, err
		}
		if p.ignored, err = ignored(); err != nil {
			return nil, err
		}
		// All jobs of a shim have one user and one sandbox. A user namespace of its own gives it what it needs and no more.
		if os.Geteuid() == 0 {
			if err := privilege.Keep(jail.Capabilities(&start.Job)); err != nil {
				return nil, err
			}
		}
		if start.KernelMDWE && start.Job.Sandbox.MemoryDenyWriteExecute {
			if p.mdwe, err = jail.DenyWriteExecute(); err != nil {
				return nil, err
			}
		}
		s.place = p
	}
	if err := p.furnish(&start.Job); err != nil {
		return nil, err
	}
	return p, nil
}

// furnish makes the filters and the room, if the job needs them and they do not exist yet.
func (p *place) furnish(j *spec.Run) (err error) {
	if !p.ready {
		sandbox := j.Sandbox
		sandbox.MemoryDenyWriteExecute = sandbox.MemoryDenyWriteExecute && !p.mdwe
		if p.filters, err = jail.Filters(sandbox); err != nil {
			return err
		}
		p.ready = true
	}
	if p.room != nil && p.room.Outdated() {
		p.room.Close()
		p.room = nil
	}
	if p.room == nil && j.Sandbox.Namespaces() {
		p.room, err = jail.NewRoom(j.Sandbox, j.Dir, j.Credentials)
	}
	return err
}

// renew takes away what a job left, for the next one. What cannot be proven clean is made anew, and where that cannot be
// done, there is no next one.
func (s *shim) renew(j *spec.Run) {
	p := s.place
	if p == nil {
		return
	}
	// What root can do to its namespaces cannot all be seen afterwards.
	root := j.Credentials == nil || j.Credentials.UID == 0 || j.Sandbox.AmbientCapabilities != 0
	if os.Geteuid() != 0 {
		root = !j.Sandbox.NoNewPrivileges // otherwise the program's file may have given it capabilities over the namespaces
	}
	if p.room != nil && (root || !p.room.Untouched()) {
		p.room.Close()
		p.room = nil
	}
	if err := p.furnish(j); err != nil {
		s.unfit = true
		return
	}
	// Without a limit on the scope it takes nothing from the next job.
	if p.groups != nil && (j.Limits.MemoryMax != nil || j.Limits.MemoryHigh != nil) {
		s.unfit = !reclaim(p.groups)
	}
}

// reclaim frees memory that jobs have charged to groups, and reports whether little of it is left. A call that takes longer than
// reclaimTime hangs in the kernel and cannot be interrupted: it ends with the shim, which gets no other job.
func reclaim(groups *cgroup.Tree) bool {
	done := make(chan bool, 1)
	go func() {
		left, err := groups.Reclaim(maxLeft)
		done <- err == nil && left <= maxLeft
	}()
	t := time.NewTimer(reclaimTime)
	defer t.Stop()
	select {
	case ok := <-done:
		return ok
	case <-t.C:
		return false
	}
}

// protect keeps the OOM killer from the shim and returns the score that its jobs are to have: the one from before, but never
// one that protects them, too. Without the privilege to do so both stay as they are.
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
	if strings.HasPrefix(score, "-") {
		score = "0"
	}
	return &score, nil
}

// ignored returns the signals that this process ignores because the process that started the engine did (proc_pid_status(5), SigIgn).
func ignored() ([]int, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("cannot read which signals are ignored: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		text, ok := strings.CutPrefix(line, "SigIgn:")
		if !ok {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("cannot read which signals are ignored: %w", err)
		}
		var signals []int
		for mask != 0 {
			n := bits.TrailingZeros64(mask)
			mask &^= 1 << n
			if n+1 != 32 && n+1 != 33 { // they belong to the C library (nptl(7)), and systemd leaves them alone
				signals = append(signals, n+1)
			}
		}
		return signals, nil
	}
	return nil, errors.New("cannot read which signals are ignored: /proc/self/status does not say it")
}
