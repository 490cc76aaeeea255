package job_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox"
	"github.com/rtask/rtask/sandbox/log"
	"github.com/rtask/rtask/sandbox/spec"
)

// open is what a program does once: it finds out what the machine gives, and opens the jobs' records.
func open() (*job.Manager, func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	logger := slog.New(slog.DiscardHandler)
	host, err := sandbox.Open(context.Background(), sandbox.Options{
		Shim:       testkit.Shim(),            // /usr/libexec/rtask/rtask-shim
		RuntimeDir: filepath.Join(dir, "run"), // /run/rtask/shim
		NoSystemd:  true,
		Logger:     logger,
	})
	if err != nil {
		panic(err)
	}
	jobs, err := job.Open(context.Background(), job.Options{
		Host: host, StateDir: filepath.Join(dir, "state"), LogDir: filepath.Join(dir, "log"), MaxJobs: 10,
		UIDs: spec.UIDRange{First: 70000, Last: 70999}, Logger: logger,
	})
	if err != nil {
		panic(err)
	}
	return jobs, func() {
		jobs.Close()
		host.Close()
		os.RemoveAll(dir)
	}
}

// Start returns once the job's process runs.
func ExampleManager_Start() {
	jobs, done := open()
	defer done()
	ctx := context.Background()

	j, err := jobs.Start(ctx, job.Spec{Run: spec.Run{Args: []string{"sleep", "1000"}}, Owner: job.Owner{Name: "ada"}, Trigger: "local"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(j.Args, j.State, j.PID > 0, len(j.ID))

	// The same owner, command and arguments again are a duplicate, where that is asked for.
	_, err = jobs.Start(ctx, job.Spec{Run: spec.Run{Args: []string{"sleep", "1000"}}, Owner: job.Owner{Name: "ada"}, Trigger: "local", Terms: job.Terms{Unique: true}})
	fmt.Println(strings.Replace(err.Error(), j.ID, "ID", 1))

	if _, err := jobs.Stop(ctx, j.ID, job.StopOptions{By: "ada"}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// [sleep 1000] running true 16
	// the same command is running already as job ID
}

// A command that does not exist is no error of Start: the job has ended, and says why.
func ExampleManager_Start_notFound() {
	jobs, done := open()
	defer done()

	j, err := jobs.Start(context.Background(), job.Spec{Run: spec.Run{Args: []string{"no-such-command"}}, Trigger: "local"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(j.State, j.Exit.Reason, j.Exit.Code)
	// Output:
	// ended setup 127
}

// Stop returns when no process of the job is left.
func ExampleManager_Stop() {
	jobs, done := open()
	defer done()
	ctx := context.Background()

	j, err := jobs.Start(ctx, job.Spec{Run: spec.Run{Args: []string{"sleep", "1000"}}, Trigger: "local", Owner: job.Owner{Name: "ada"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	j, err = jobs.Stop(ctx, j.ID, job.StopOptions{By: "ada", Kill: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(j.State, j.Exit.Reason, j.Signal(), j.Exit.Detail)
	// Output:
	// ended stopped SIGKILL stopped by ada
}

// Status takes an id, the beginning of one, or a PID.
func ExampleManager_Status() {
	jobs, done := open()
	defer done()
	ctx := context.Background()

	j, err := jobs.Start(ctx, job.Spec{Run: spec.Run{Args: []string{"sh", "-c", "exit 3"}}, Trigger: "local"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := jobs.Wait(ctx, j.ID); err != nil {
		fmt.Println(err)
		return
	}
	j, err = jobs.Status(j.ID[:8])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(j.State, j.Exit.Reason, j.Exit.Code, j.Succeeded())
	_, err = jobs.Status("x1x1")
	fmt.Println(err)
	// Output:
	// ended exit-code 3 false
	// "x1x1": no such job
}

// StreamLogs passes on what a job writes, from its first byte, until it has ended.
func ExampleManager_StreamLogs() {
	jobs, done := open()
	defer done()
	ctx := context.Background()

	script := "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three"
	j, err := jobs.Start(ctx, job.Spec{Run: spec.Run{Args: []string{"sh", "-c", script}, LogMax: 1 << 20}, Trigger: "local"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = jobs.StreamLogs(ctx, j.ID, job.LogOptions{Follow: true}, func(e log.Entry) error {
		fmt.Printf("%s: %s", e.Stream, e.Data)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// stdout: one
	// stderr: two
	// stdout: three
}
