package main

import (
	"context"
	"time"
)

// runsARound is how often each command runs in a round.
const runsARound = 10

// measureRun compares a command in a scope, waited for.
func measureRun(ctx context.Context, _ *machine, rounds int) ([]row, error) {
	const section = "On the command line"
	commands := [][]string{
		{"systemd-run", "--scope", "-q", "true"},
		{"rtaskctl", "run", "--command", "true"},
		{"rtaskctl", "run", "true"}, // the task
	}
	times := make([][]float64, len(commands))
	for turn := range rounds * runsARound {
		for n := range commands {
			// Each begins as often: what the one before leaves to be cleared away costs the next one.
			i := (turn + n) % len(commands)
			c := commands[i]
			begin := time.Now()
			if err := command(ctx, c[0], c[1:]...); err != nil {
				return nil, err
			}
			times[i] = append(times[i], milliseconds(time.Since(begin)))
		}
	}
	const peer = "systemd-run --scope"
	return []row{
		cost(section, "rtaskctl run COMMAND", "p50 ms", median(times[1]), median(times[0]), peer),
		cost(section, "rtaskctl run COMMAND", "p99 ms", percentile(times[1], 99), percentile(times[0], 99), peer),
		cost(section, "rtaskctl run TASK", "p50 ms", median(times[2]), median(times[0]), peer),
		cost(section, "rtaskctl run TASK", "p99 ms", percentile(times[2], 99), percentile(times[0], 99), peer),
	}, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
