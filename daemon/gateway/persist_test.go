package gateway

import (
	"context"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/rtask/rtask/ctl/client"
)

// A call is made again while the engine is away, and for half a minute from when it went, not from when it was first asked.
func TestPersist(t *testing.T) {
	reset := connect.NewError(connect.CodeCanceled, "reset").WithCause(syscall.ECONNRESET) // as connect has it
	absent := connect.NewError(connect.CodeUnavailable, "no engine").WithCause(client.ErrNotRunning)
	refused := connect.Errorf(connect.CodeInvalidArgument, "no")
	type step struct {
		lasts time.Duration
		err   error
	}
	for name, c := range map[string]struct {
		steps []step // the last is repeated
		calls int    // 0: many
		ok    bool
		takes time.Duration // at least
	}{
		"answers":               {steps: []step{{0, nil}}, calls: 1, ok: true},
		"says no":               {steps: []step{{0, refused}}, calls: 1},
		"is killed":             {steps: []step{{0, reset}, {0, absent}, {0, nil}}, calls: 3, ok: true},
		"is killed after a day": {steps: []step{{24 * time.Hour, reset}, {time.Second, nil}}, calls: 2, ok: true},
		"was never there":       {steps: []step{{0, absent}}, calls: 1},
		"stays away":            {steps: []step{{24 * time.Hour, reset}, {0, absent}}, takes: 24*time.Hour + returnTime},
		"always fails":          {steps: []step{{time.Second, reset}}, takes: returnTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, calls := time.Now(), 0
				_, err := persist(t.Context(), func(context.Context) (*struct{}, error) {
					s := c.steps[min(calls, len(c.steps)-1)]
					calls++
					time.Sleep(s.lasts)
					return &struct{}{}, s.err
				})
				took := time.Since(begin)
				if (err == nil) != c.ok || c.calls != 0 && calls != c.calls || c.takes != 0 && (took < c.takes || took > c.takes+5*time.Second) {
					t.Errorf("%d calls in %v: %v", calls, took, err)
				}
			})
		})
	}
}

// A caller that goes away is not asked for.
func TestPersistCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := persist(ctx, func(ctx context.Context) (*struct{}, error) {
		calls++
		cancel()
		return nil, connect.NewError(connect.CodeCanceled, "canceled").WithCause(ctx.Err())
	})
	if err == nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
