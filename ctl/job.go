package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// resultText is how a job ended, in a few words; "" if it has not.
func resultText(j *rtaskv1.Job) string {
	if !j.Ended() {
		return ""
	}
	text := j.GetReason().Word()
	switch {
	case text == "":
		return "success"
	case j.GetSignal() != "":
		text += " " + j.GetSignal()
	case j.ExitCode != nil && text == "exit-code":
		text += fmt.Sprintf(" %d", j.GetExitCode())
	case j.ExitCode != nil:
		text += fmt.Sprintf(" (exit code %d)", j.GetExitCode())
	}
	return text
}

// outcome is how a job ended, in a few words, or the state that it is in; "" for none.
func outcome(j *rtaskv1.Job) string {
	if j == nil || j.Ended() {
		return resultText(j)
	}
	return j.GetState().Word()
}

// begun is when a job began, or, if it has not, was accepted.
func begun(j *rtaskv1.Job) *timestamppb.Timestamp {
	if t := j.GetStartedAt(); t != nil {
		return t
	}
	return j.GetQueuedAt()
}

// duration is how long a job ran, or has run so far; "" if it has not begun.
func duration(j *rtaskv1.Job) string {
	if j.GetStartedAt() == nil {
		return ""
	}
	end := time.Now()
	if t := j.GetEndedAt(); t != nil {
		end = t.AsTime()
	}
	return span(end.Sub(j.GetStartedAt().AsTime()))
}

// signalNumber is the number of a signal by its name, 0 if there is none.
func signalNumber(name string) int {
	if offset, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		const sigRTMin = 34 // as the C library counts them, signal(7)
		if n, err := strconv.ParseUint(offset, 10, 8); err == nil && n <= 30 {
			return sigRTMin + int(n)
		}
	}
	return int(unix.SignalNum(name))
}

// exitOf is the exit status that tells how a job ended.
func exitOf(j *rtaskv1.Job) int {
	code, signal := int(j.GetExitCode()), signalNumber(j.GetSignal())
	own := 0 // what the main process did
	switch {
	case signal > 0:
		own = exitSignal + signal
	case code > 0:
		own = code
	}
	orElse := func(otherwise int) int {
		if own == 0 {
			return otherwise
		}
		return own
	}
	if !j.Ended() {
		return exitRtask
	}
	switch j.GetReason() {
	case rtaskv1.Reason_REASON_UNSPECIFIED:
		return 0
	case rtaskv1.Reason_REASON_EXIT_CODE:
		return orElse(exitError)
	case rtaskv1.Reason_REASON_TIMEOUT:
		return exitTimeout
	case rtaskv1.Reason_REASON_SIGNAL, rtaskv1.Reason_REASON_OOM:
		return orElse(exitSignal + int(unix.SIGKILL))
	case rtaskv1.Reason_REASON_STOPPED:
		return orElse(exitSignal + int(unix.SIGTERM))
	case rtaskv1.Reason_REASON_SETUP:
		if code == exitNotExecutable || code == exitNotFound {
			return code
		}
	}
	return exitRtask
}

// show returns one job. It outlasts a restart of the engine.
func show(ctx context.Context, e *client.Client, ref string) (*rtaskv1.Job, error) {
	var job *rtaskv1.Job
	var absent error
	err := persist(ctx, patienceWith(e), func() (bool, error) {
		r, err := e.Jobs.Status(ctx, &rtaskv1.StatusRequest{Job: ref})
		if errors.Is(err, client.ErrNotRunning) || errors.Is(err, client.ErrUnreachable) {
			absent, err = err, nil // it did not just go away
		} else if err == nil {
			job = r.GetJob()
		}
		return false, err
	})
	if absent != nil {
		return nil, absent
	}
	return job, err
}

// await returns a job when it has ended. It outlasts a restart of the engine.
func await(ctx context.Context, e *client.Client, ref string) (*rtaskv1.Job, error) {
	var job *rtaskv1.Job
	err := persist(ctx, patienceWith(e), func() (bool, error) {
		r, err := e.Jobs.Wait(ctx, &rtaskv1.WaitRequest{Job: ref})
		if err == nil {
			job = r.GetJob()
		}
		return false, err
	})
	return job, err
}
