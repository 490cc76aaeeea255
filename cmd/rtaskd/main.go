// Command rtaskd is the engine: it runs jobs and serves the control socket. See rtaskd(8).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rtask/rtask/daemon"
	"github.com/rtask/rtask/daemon/logging"
)

// version is set by the linker.
var version = "dev"

func main() {
	if daemon.IsGenerator(os.Args[0]) {
		// What is wrong is for the journal. A boot goes on without the schedules.
		if err := daemon.Generate(os.Args); err != nil {
			fmt.Fprintln(os.Stderr, "rtask-generator:", err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	reload := make(chan struct{})
	go func() {
		for range hangup {
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	env := daemon.Environment{
		Args: os.Args, Getenv: os.Getenv, Stdout: os.Stdout, Version: version, Reload: reload, OwnProcess: true,
		Logger: logging.New(os.Stderr, os.Getenv),
	}
	if err := daemon.Main(ctx, env); err != nil {
		fmt.Fprintln(os.Stderr, "rtaskd:", err)
		os.Exit(1)
	}
}
