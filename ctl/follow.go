package ctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// patience is how long an engine may be away, while it is restarted or upgraded, before a follower gives up, and remotePatience how
	// long one on another machine: the way there may be cut for a while, too.
	patience       = 30 * time.Second
	remotePatience = 2 * time.Minute
	// firstPause is the wait before the first new try; it doubles up to lastPause.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
	// settled is how long a call must have lasted to count as having reached the engine.
	settled = 2 * time.Second
)

// persist makes a call again for as long as it breaks off, and the engine is not away for longer than patience. The call
// says whether it reached the engine.
func persist(ctx context.Context, patience time.Duration, call func() (reached bool, err error)) error {
	var away time.Time
	pause := firstPause
	for {
		began := time.Now()
		reached, err := call()
		if err == nil || ctx.Err() != nil || !client.Broken(err) {
			return err
		}
		now := time.Now()
		if away.IsZero() || reached || now.Sub(began) >= settled {
			away, pause = now, firstPause
		}
		if now.Sub(away) >= patience {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
		pause = min(2*pause, lastPause)
	}
}

// patienceWith is how long an engine may be away.
func patienceWith(e *client.Client) time.Duration {
	if _, remote := e.Remote(); remote {
		return remotePatience
	}
	return patience
}

// follower copies a job's output.
type follower struct {
	engine *client.Client
	// job is its whole id: a prefix or a PID may mean another one after a while.
	job string
	// request, if set, says what of it to copy, and how; otherwise it is all there is, or, with follow, all that comes.
	request        *rtaskv1.StreamLogsRequest
	follow         bool
	stdout, stderr io.Writer

	// offset is where to go on after a break.
	offset int64
	// begun, by stream, is whether the last line that was written has not ended yet.
	begun [3]bool
	line  []byte
}

// copy copies the output; with follow, until the job has ended. When the connection breaks it goes on where it was, so
// that nothing is lost and nothing comes twice.
func (f *follower) copy(ctx context.Context) error {
	var failed error
	err := persist(ctx, patienceWith(f.engine), func() (bool, error) {
		reached, err := f.once(ctx)
		var write *writeError
		if errors.As(err, &write) {
			failed, err = err, nil
		}
		return reached, err
	})
	return errors.Join(failed, err)
}

func (f *follower) once(ctx context.Context) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &rtaskv1.StreamLogsRequest{Follow: f.follow}
	if f.request != nil {
		request = proto.Clone(f.request).(*rtaskv1.StreamLogsRequest)
	}
	request.Job, request.Offset = f.job, f.offset
	s, err := f.engine.Jobs.StreamLogs(ctx, request)
	if err != nil {
		return false, err
	}
	defer func() {
		cancel() // Close would otherwise read what is left of the stream
		_ = s.Close()
	}()
	for m, err := range client.Messages(s) {
		if err != nil {
			return received, err
		}
		received = true
		w, data := f.stdout, m.GetData()
		if m.GetStream() == rtaskv1.Stream_STREAM_STDERR {
			w = f.stderr
		}
		if request.GetTimes() {
			data = f.stamp(m)
		}
		if _, err := w.Write(data); err != nil {
			return received, &writeError{"the output", err}
		}
		f.offset = m.GetOffset()
	}
	return received, nil
}

// stampFormat is RFC 3339 with all nine digits, so that times stand in a column.
const stampFormat = "2006-01-02T15:04:05.000000000Z07:00"

// stamp returns a piece with the time, local, before each line that begins in it. It is valid until the next call.
func (f *follower) stamp(m *rtaskv1.StreamLogsResponse) []byte {
	begun := &f.begun[0]
	if s := int(m.GetStream()); s > 0 && s < len(f.begun) {
		begun = &f.begun[s]
	}
	stamp := m.GetTime().AsTime().Local().Format(stampFormat) + " "
	f.line = f.line[:0]
	for line := range bytes.Lines(m.GetData()) {
		if !*begun {
			f.line = append(f.line, stamp...)
		}
		f.line = append(f.line, line...)
		*begun = line[len(line)-1] != '\n'
	}
	return f.line
}

// dropped notes on standard error that output was not kept.
func (a *app) dropped(j *rtaskv1.Job) {
	if n := j.GetLogDroppedBytes(); n > 0 {
		a.say("rtaskctl: %d bytes of the output of job %s were not kept (log_max_bytes)", n, j.GetId())
	}
}
