package control

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// However many clients ask for their jobs, the records are looked through for one at a time. The others wait as long as they like.
func TestKeyJobsOneAtATime(t *testing.T) {
	f := newFixture(t, tasks)
	r := &rtaskv1.KeyJobsRequest{}
	asked := &call{Caller: auth.Caller{Kind: auth.KeyHolder}, task: f.Snapshot().Config.Tasks["hello"]}
	f.scan <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := f.KeyJobs(asked.with(ctx), r)
		done <- err
	}()
	cancel()
	if err := <-done; connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("beside another one: %v", err)
	}
	go func() {
		_, err := f.KeyJobs(asked.with(t.Context()), r)
		done <- err
	}()
	<-f.scan
	if err := <-done; err != nil {
		t.Errorf("behind another one: %v", err)
	}
}
