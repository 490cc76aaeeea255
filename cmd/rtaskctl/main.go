// Command rtaskctl starts, follows and stops jobs of rtaskd. See rtaskctl(1).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rtask/rtask/ctl"
)

// version is set by the linker.
var version = "dev"

// repeat is how long a second signal counts as the first one: timeout(1), for one, sends a signal to its child and then to
// the group that the child is in.
const repeat = 300 * time.Millisecond

func main() {
	// Otherwise the runtime ends the process when nobody reads its output any more, and run could not stop its job. The error of the
	// write says the same as the signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx := interruptible(context.Background())
	env := ctl.Env{Lookup: os.LookupEnv, UID: os.Geteuid(), Version: version}
	os.Exit(ctl.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, env))
}

// interruptible returns a context that ends with the first signal. The next one ends the process at once. Signals that
// are ignored, as behind & in a script, stay so.
func interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() { // until the process ends
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(ctl.Interrupted{Signal: s})
		}
		time.Sleep(repeat)
		signal.Stop(signals)
	}()
	return ctx
}
