package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// probe prints when it began; see probe/probe.c.
	probe = "/usr/local/bin/bench-probe"
	// startsARound is how often a job is started in a round.
	startsARound = 20
)

// begun is how long a start took, in milliseconds: since the call of Start, and since the job was accepted.
type begun struct {
	call, accepted []float64
}

// measureStart compares the time to a job's first instruction with that of a plain fork and exec.
func measureStart(ctx context.Context, m *machine, rounds int) ([]row, error) {
	const section, peer = "Start to first instruction", "fork + exec"
	tasks := []string{"cold"}
	if m.pools {
		tasks = append(tasks, "warm", "warm-off")
	}
	jobs := map[string]*begun{"cold": {}, "warm": {}, "warm-off": {}}
	var plain []float64
	for range rounds * startsARound {
		begin := time.Now()
		out, err := output(ctx, probe)
		if err != nil {
			return nil, err
		}
		first, err := stamp(out)
		if err != nil {
			return nil, err
		}
		plain = append(plain, milliseconds(first.Sub(begin)))
		for _, t := range tasks {
			if err := m.startOne(ctx, t, jobs[t]); err != nil {
				return nil, err
			}
		}
	}
	var rows []row
	for _, t := range tasks {
		if t == "warm-off" {
			continue // it is compared with warm
		}
		rows = append(rows,
			cost(section, t+" slot, from the call of Start", "p50 ms", median(jobs[t].call), median(plain), peer),
			cost(section, t+" slot, from the call of Start", "p99 ms", percentile(jobs[t].call, 99), percentile(plain, 99), peer),
			cost(section, t+" slot, from queued_at", "p50 ms", median(jobs[t].accepted), median(plain), peer))
	}
	if m.pools {
		rows = append(rows, cost(section, "warm slot, profile default", "p50 ms", median(jobs["warm"].call), median(jobs["warm-off"].call), "profile off").
			aiming("1.0"))
	}
	return rows, nil
}

// startOne starts a job, reads when it began, and waits for its end.
func (m *machine) startOne(ctx context.Context, task string, b *begun) error {
	begin := time.Now()
	started, err := m.engine.Jobs.Start(ctx, &rtaskv1.StartRequest{Name: task})
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", task, err)
	}
	id := started.Job.Id
	logs, err := m.engine.Jobs.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: id, Follow: true})
	if err != nil {
		return fmt.Errorf("cannot read the output of %s: %w", task, err)
	}
	var out strings.Builder
	for m, err := range client.Messages(logs) {
		if err != nil {
			return fmt.Errorf("cannot read the output of %s: %w", task, err)
		}
		out.Write(m.Data)
	}
	ended, err := m.engine.Jobs.Wait(ctx, &rtaskv1.WaitRequest{Job: id})
	if err != nil {
		return fmt.Errorf("cannot wait for %s: %w", task, err)
	}
	j := ended.Job
	if j.Reason != rtaskv1.Reason_REASON_UNSPECIFIED {
		return fmt.Errorf("%s ended with %s: %s", task, j.Reason, j.Detail)
	}
	first, err := stamp(out.String())
	if err != nil {
		return err
	}
	b.call = append(b.call, milliseconds(first.Sub(begin)))
	b.accepted = append(b.accepted, milliseconds(first.Sub(j.QueuedAt.AsTime())))
	return nil
}

// stamp reads what the probe printed.
func stamp(text string) (time.Time, error) {
	ns, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read when a process began: %w", err)
	}
	return time.Unix(0, ns), nil
}
