package shim

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

func endPriority(e *spec.Exit) int {
	if e.Succeeded() {
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

// leftText says what became of processes that a job left, and what to do instead.
func leftText(n int) string {
	what := "1 process that it left was ended"
	if n > 1 {
		what = fmt.Sprintf("%d processes that it left were ended", n)
	}
	return what + " (a job ends with its main process: run a server in the foreground, or as a service with systemd-run)"
}
