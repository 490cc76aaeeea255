package control

import (
	"context"
	"sync"

	"github.com/rtask/rtask/daemon/auth"
)

// maxCalls is how many calls may be under way at a time on behalf of one API key or client certificate: blocking runs, waits, followers of logs.
const maxCalls = 512

// waits are the calls under way on behalf of each API key, and of each client certificate, so that they end with it. One whose message is still to come is not
// among them.
type waits struct {
	most  int        // of each key
	mu    sync.Mutex // guards byKey
	byKey map[string]map[*wait]struct{}
}

type wait struct {
	cancel context.CancelCauseFunc
	// check returns why the call is not allowed any more; nil: only its key ends it.
	check func() error
	gone  chan struct{} // closed when the call is over
}

// checked returns the calls that have a check.
func (w *waits) checked() []*wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*wait
	for _, of := range w.byKey {
		for one := range of {
			if one.check != nil {
				all = append(all, one)
			}
		}
	}
	return all
}

// add has cancel called with auth.ErrUnauthorized when the key with this id is revoked. The caller verifies the key after that,
// and calls done when the call is over. It returns false if there are too many.
func (w *waits) add(cancel context.CancelCauseFunc, key string) (done func(), ok bool) {
	return w.addChecked(cancel, key, nil)
}

// addChecked is add for a call that check decides anew.
func (w *waits) addChecked(cancel context.CancelCauseFunc, key string, check func() error) (done func(), ok bool) {
	one := &wait{cancel: cancel, check: check, gone: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.byKey[key]) >= w.most {
		return nil, false
	}
	if w.byKey[key] == nil {
		w.byKey[key] = map[*wait]struct{}{}
	}
	w.byKey[key][one] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.byKey[key], one); len(w.byKey[key]) == 0 {
			delete(w.byKey, key)
		}
		close(one.gone)
	}, true
}

// end ends all calls of a key and returns when they are over, or with ctx, and how many there were.
func (w *waits) end(ctx context.Context, key string) int {
	w.mu.Lock()
	var all []*wait
	for one := range w.byKey[key] {
		all = append(all, one)
	}
	w.mu.Unlock()
	for _, one := range all {
		one.cancel(auth.ErrUnauthorized)
	}
	for _, one := range all {
		select {
		case <-one.gone:
		case <-ctx.Done():
			return len(all)
		}
	}
	return len(all)
}
