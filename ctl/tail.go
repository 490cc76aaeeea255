package ctl

import (
	"bytes"
	"context"
	"errors"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// lastLines is how many lines of output a terminal is shown, as systemctl(1) has it, and lastBytes how much at most.
	lastLines = 10
	lastBytes = 64 << 10
)

// ending keeps the end of what is written to it.
type ending struct {
	data []byte
	cut  bool // there was more
}

// Write implements io.Writer.
func (e *ending) Write(p []byte) (int, error) {
	e.data = append(e.data, p...)
	if more := len(e.data) - lastBytes; more > 0 {
		e.data, e.cut = append(e.data[:0], e.data[more:]...), true
	}
	return len(p), nil
}

// lines returns the last n lines, and whether there was more.
func (e *ending) lines(n int) (text []byte, more bool) {
	all := bytes.SplitAfter(e.data, []byte("\n"))
	if len(all[len(all)-1]) == 0 {
		all = all[:len(all)-1]
	}
	if len(all) <= n {
		return e.data, e.cut
	}
	return bytes.Join(all[len(all)-n:], nil), true
}

// printTail prints the last lines of a job's output, escaped, and how to see the rest.
func (a *app) printTail(ctx context.Context, job *rtaskv1.Job) error {
	tail := int64(lastLines + 1) // one more shows that there is more
	kept := &ending{}
	f := &follower{engine: a.engine, job: job.GetId(), request: &rtaskv1.StreamLogsRequest{Tail: &tail}, stdout: kept, stderr: kept}
	if err := f.copy(ctx); err != nil {
		return err
	}
	text, more := kept.lines(lastLines)
	out := &escaper{to: a.stdout}
	_, err := out.Write(text)
	if err = errors.Join(err, out.Flush()); err != nil {
		return &writeError{"the output", err}
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		if err := a.print("\n"); err != nil {
			return err
		}
	}
	if more {
		a.say("hint: these are the last lines; rtaskctl logs %s shows all", printable(job.GetId()))
	}
	return nil
}
