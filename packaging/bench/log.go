package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// linesFile is what is written, and linesBytes its size. It is in memory, as the log is.
	linesFile  = "/run/bench-lines"
	linesBytes = 256 << 20
	// lineBytes is the length of a line.
	lineBytes = 100
	// jobLogs is where the engine keeps logs.
	jobLogs = "/var/log/rtask/jobs"
)

// writeLines makes the file that is written by both sides.
func writeLines(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot make lines: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range linesBytes / lineBytes {
		fmt.Fprintf(w, "%09d %s\n", i, strings.Repeat("x", lineBytes-11))
	}
	if _, err := w.WriteString(strings.Repeat("x", linesBytes%lineBytes)); err != nil {
		return fmt.Errorf("cannot make lines: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("cannot make lines: %w", err)
	}
	return nil
}

// measureLog compares a job's output on its way through the log to one follower with a pipe: of a program that does
// nothing but copy, and of one that makes its lines.
func measureLog(ctx context.Context, _ *machine, rounds int) ([]row, error) {
	const section, peer = "Output to one follower", "a pipe"
	commands := [][]string{
		{"cat", linesFile},
		{"rtaskctl", "run", "lines"},
		{"rtaskctl", "run", "lines-no-journal"},
		numbers(),
		{"rtaskctl", "run", "numbers-no-journal"},
	}
	speeds := make([][]float64, len(commands))
	for range rounds {
		for i, c := range commands {
			speed, err := drain(ctx, c)
			if err != nil {
				return nil, err
			}
			speeds[i] = append(speeds[i], speed)
			if err := removeLogs(); err != nil {
				return nil, err
			}
		}
	}
	return []row{
		rate(section, "cat", "MB/s", median(speeds[1]), median(speeds[0]), peer).aiming("≥ 0.5"),
		rate(section, "cat, journal = false", "MB/s", median(speeds[2]), median(speeds[0]), peer).aiming("≥ 0.5"),
		rate(section, "seq, journal = false", "MB/s", median(speeds[4]), median(speeds[3]), peer).aiming("≥ 0.5"),
	}, nil
}

// numbers is a command that formats lines as long as those of linesFile, and as many.
func numbers() []string {
	return []string{"seq", "-f", fmt.Sprintf("%%0%d.0f", lineBytes-1), strconv.Itoa(linesBytes / lineBytes)}
}

// drain runs a command that prints linesBytes, but for the rest of a line, reads all of them from a pipe, and returns
// megabytes a second.
func drain(ctx context.Context, argv []string) (float64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fmt.Errorf("cannot make a pipe: %w", err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", cmd, err)
	}
	n, err := count(stdout)
	took := time.Since(begin)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", cmd, err)
	}
	if n > linesBytes || n <= linesBytes-lineBytes {
		return 0, fmt.Errorf("%s printed %d of %d bytes", cmd, n, int64(linesBytes))
	}
	return float64(n) / 1e6 / took.Seconds(), nil
}

// count reads all there is, as `cat` would.
func count(r io.Reader) (total int64, err error) {
	buf := make([]byte, 128<<10)
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("cannot read from the pipe: %w", err)
		}
	}
}

// removeLogs makes room: the logs of what has ended are in memory here, and each is larger than all lines.
func removeLogs() error {
	logs, err := filepath.Glob(filepath.Join(jobLogs, "*"))
	if err != nil {
		return fmt.Errorf("cannot find logs: %w", err)
	}
	for _, l := range logs {
		if err := os.RemoveAll(l); err != nil {
			return fmt.Errorf("cannot remove a log: %w", err)
		}
	}
	return nil
}
