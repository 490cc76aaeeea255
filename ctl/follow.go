package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	// patience is how long an engine may be away, while it is restarted or upgraded, before a follower gives up.
	patience = 30 * time.Second
	// firstPause is the wait before the first new try; it doubles up to lastPause.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
	// settled is how long a call must have lasted to count as having reached the engine.
	settled = 2 * time.Second
)

// persist makes a call again for as long as it breaks off, and the engine is not away for longer than patience. The call
// says whether it reached the engine.
func persist(ctx context.Context, call func() (reached bool, err error)) error {
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

// follower copies a job's output.
type follower struct {
	engine *client.Client
	// job is its whole id: a prefix or a PID may mean another one after a while.
	job            string
	follow         bool
	stdout, stderr io.Writer

	// offset is where to go on after a break.
	offset int64
}

// errWrite marks an error of the receiving side, which no new call mends.
var errWrite = errors.New("cannot write the output")

// copy copies the output; with follow, until the job has ended. When the connection breaks it goes on where it was, so
// that nothing is lost and nothing comes twice.
func (f *follower) copy(ctx context.Context) error {
	var failed error
	err := persist(ctx, func() (bool, error) {
		reached, err := f.once(ctx)
		if errors.Is(err, errWrite) {
			failed, err = err, nil
		}
		return reached, err
	})
	return errors.Join(failed, err)
}

func (f *follower) once(ctx context.Context) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := f.engine.Jobs.StreamLogs(ctx, connect.NewRequest(&rtaskv1.StreamLogsRequest{
		Job: f.job, Follow: f.follow, Offset: f.offset,
	}))
	if err != nil {
		return false, err
	}
	for s.Receive() {
		m := s.Msg()
		received = true
		w := f.stdout
		if m.GetStream() == rtaskv1.Stream_STREAM_STDERR {
			w = f.stderr
		}
		if _, err := w.Write(m.GetData()); err != nil {
			return received, fmt.Errorf("%w: %w", errWrite, err)
		}
		f.offset = m.GetOffset()
	}
	err = s.Err()
	cancel() // Close would otherwise read what is left of the stream
	_ = s.Close()
	return received, err
}

// dropped notes on standard error that output was not kept.
func (a *app) dropped(j *rtaskv1.Job) {
	if n := j.GetLogDroppedBytes(); n > 0 {
		a.say("rtaskctl: %d bytes of the output of job %s were not kept (log_max_bytes)", n, j.GetId())
	}
}
