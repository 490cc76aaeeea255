package control

import (
	"context"
	"sync"

	"github.com/rtask/rtask/daemon/auth"
)

// waits are the calls under way on behalf of each API key, so that they end with the key.
type waits struct {
	mu    sync.Mutex // guards byKey
	byKey map[string]map[*wait]struct{}
}

type wait struct {
	cancel context.CancelCauseFunc
	gone   chan struct{} // closed when the call is over
}

// add returns a context that ends with auth.ErrUnauthorized as its cause when the key with this id is revoked. The caller
// verifies the key after that, and calls the function when it is done.
func (w *waits) add(ctx context.Context, key string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	one := &wait{cancel: cancel, gone: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey[key] == nil {
		w.byKey[key] = map[*wait]struct{}{}
	}
	w.byKey[key][one] = struct{}{}
	return ctx, func() {
		cancel(nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.byKey[key], one); len(w.byKey[key]) == 0 {
			delete(w.byKey, key)
		}
		close(one.gone)
	}
}

// end ends all calls of a key and returns when they are over, or with ctx.
func (w *waits) end(ctx context.Context, key string) {
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
			return
		}
	}
}
