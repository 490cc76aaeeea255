package ctl

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// repeat is how long a second signal counts as the first one: timeout(1), for one, sends a signal to its child and then to
// the group that the child is in.
const repeat = 300 * time.Millisecond

// Interruptible returns a context that ends with the first SIGINT or SIGTERM, with Interrupted as its cause. The next
// signal ends the process at once. Signals that are ignored, as behind & in a script, stay so. It is for main, once.
func Interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() { // until the process ends
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(Interrupted{Signal: s})
		}
		time.Sleep(repeat)
		signal.Stop(signals)
	}()
	return ctx
}
