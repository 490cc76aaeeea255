package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// sleepers is how many jobs run side by side, each with its caller waiting over HTTP.
	sleepers = 100
	// settleTime lets the daemons come to rest before they are looked at.
	settleTime = 2 * time.Second
	// allTime is how long they may take to run.
	allTime = 60 * time.Second
	// shim is the program that stays with a job.
	shim = "/usr/libexec/rtask/rtask-shim"
)

// memory is that of a process in KiB, from /proc/PID/smaps_rollup (proc(5)).
type memory map[string]float64

// own is what is this process's alone.
func (m memory) own() float64 { return m["Private_Clean"] + m["Private_Dirty"] }

// measureMemory tells what a running job costs in memory beside its own processes.
func measureMemory(ctx context.Context, m *machine, _ int) ([]row, error) {
	// A heap that grew with other work would hide what these jobs need.
	if err := command(ctx, "systemctl", "restart", "rtask.service", "rtask-gateway.service"); err != nil {
		return nil, err
	}
	if err := m.ready(ctx, rtaskURL+"true"); err != nil {
		return nil, err
	}
	time.Sleep(settleTime)
	var before, after [2]memory
	daemons := [2]string{"rtask.service", "rtask-gateway.service"}
	look := func(into *[2]memory) error {
		for i, unit := range daemons {
			var err error
			if into[i], err = memoryOfUnit(ctx, unit); err != nil {
				return err
			}
		}
		return nil
	}
	if err := look(&before); err != nil {
		return nil, err
	}

	var callers sync.WaitGroup
	calls, hangUp := context.WithCancel(ctx)
	defer callers.Wait()
	defer hangUp()
	for range sleepers {
		callers.Go(func() { _ = m.post(calls, rtaskURL+"sleep") }) // it is stopped, so its reply is a failure
	}
	ids, err := m.running(ctx, sleepers)
	if err != nil {
		return nil, err
	}
	time.Sleep(settleTime)
	shims, err := memoryOfShims()
	if err != nil {
		return nil, err
	}
	if err := look(&after); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, err := m.engine.Jobs.Stop(ctx, &rtaskv1.StopRequest{Job: id, Kill: true}); err != nil {
			return nil, fmt.Errorf("cannot stop a job: %w", err)
		}
	}

	const section, unit = "Memory for a running job", "KiB"
	engine := (after[0].own() - before[0].own()) / sleepers
	gateway := (after[1].own() - before[1].own()) / sleepers
	own := shims["Private_Clean"] + shims["Private_Dirty"]
	return []row{
		{Section: section, What: "all that is not shared", Unit: unit, Rtask: own + engine + gateway, Aim: "< 1024"},
		{Section: section, What: "  shim, private", Unit: unit, Rtask: own},
		{Section: section, What: "  shim, anonymous", Unit: unit, Rtask: shims["Anonymous"]},
		{Section: section, What: "  shim, resident with shared text", Unit: unit, Rtask: shims["Rss"]},
		{Section: section, What: "  growth of the engine", Unit: unit, Rtask: engine},
		{Section: section, What: "  growth of the gateway", Unit: unit, Rtask: gateway},
	}, nil
}

// running waits until n jobs of the task sleep run, and returns their ids.
func (m *machine) running(ctx context.Context, n int) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, allTime)
	defer cancel()
	for {
		list, err := m.engine.Jobs.List(ctx, &rtaskv1.ListRequest{Task: "sleep"})
		if err != nil {
			return nil, fmt.Errorf("cannot list jobs: %w", err)
		}
		var ids []string
		for _, j := range list.Jobs {
			if j.Pid != 0 {
				ids = append(ids, j.Id)
			}
		}
		if len(ids) == n {
			return ids, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d jobs run", len(ids), n)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// memoryOfShims returns the mean of all shims.
func memoryOfShims() (memory, error) {
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil, fmt.Errorf("cannot look for shims: %w", err)
	}
	sum, n := memory{}, 0.0
	for _, exe := range exes {
		if target, err := os.Readlink(exe); err != nil || target != shim {
			continue
		}
		one, err := memoryOf(filepath.Dir(exe))
		if err != nil {
			return nil, err
		}
		for k, v := range one {
			sum[k] += v
		}
		n++
	}
	if n == 0 {
		return nil, errors.New("there are no shims")
	}
	for k := range sum {
		sum[k] /= n
	}
	return sum, nil
}

// memoryOfUnit returns that of a service's main process.
func memoryOfUnit(ctx context.Context, unit string) (memory, error) {
	pid, err := output(ctx, "systemctl", "show", "--property=MainPID", "--value", unit)
	if err != nil {
		return nil, err
	}
	return memoryOf(filepath.Join("/proc", strings.TrimSpace(pid)))
}

// memoryOf reads that of the process whose folder in /proc this is.
func memoryOf(dir string) (memory, error) {
	f, err := os.Open(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the memory of a process: %w", err)
	}
	defer f.Close()
	m := memory{}
	for in := bufio.NewScanner(f); in.Scan(); {
		name, value, ok := strings.Cut(in.Text(), ":")
		if kib, isSize := strings.CutSuffix(strings.TrimSpace(value), " kB"); ok && isSize {
			if m[name], err = strconv.ParseFloat(kib, 64); err != nil {
				return nil, fmt.Errorf("cannot read the memory of a process: %w", err)
			}
		}
	}
	return m, nil
}
