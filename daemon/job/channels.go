package job

import "time"

// isClosed reports whether a channel is closed. Nothing is ever sent on it.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// closed returns a channel that is closed.
func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// wake wakes the receiver of c, which has room for one signal. Several signals may be received as one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d. It returns ErrClosed if quit is closed first.
func pause(d time.Duration, quit <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-quit:
		return ErrClosed
	}
}
