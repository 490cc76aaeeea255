package ctl

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Who waits is told that somebody else has ended the draining.
func TestDrainCancelledByOthers(t *testing.T) {
	e, path := startFake(t)
	type result struct {
		status int
		stderr string
	}
	done := make(chan result)
	go func() {
		status, _, stderr := call(t.Context(), path, "drain")
		done <- result{status, stderr}
	}()
	for draining := false; !draining; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		draining = e.draining
		e.mu.Unlock()
	}
	if _, err := e.Drain(t.Context(), connect.NewRequest(&rtaskv1.DrainRequest{Cancel: true})); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.status != exitError || !strings.Contains(r.stderr, "somebody has ended the draining") {
		t.Errorf("%+v", r)
	}
}
