package auth

import "context"

// budget hands out a bounded amount of memory, first come first served.
type budget struct {
	total uint32
	// turn is held while units are taken one by one, so that two takers cannot each hold half and wait for the other.
	turn chan struct{}
	// units has one element for each unit that is out.
	units chan struct{}
}

func newBudget(total uint32) *budget {
	return &budget{total: total, turn: make(chan struct{}, 1), units: make(chan struct{}, total)}
}

// take waits for n units and returns what gives them back. More than there are is all there are. It returns the
// context's error if that ends first.
func (b *budget) take(ctx context.Context, n uint32) (release func(), err error) {
	n = min(n, b.total)
	taken := uint32(0)
	release = func() {
		for range taken {
			<-b.units
		}
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for taken < n {
		select {
		case b.units <- struct{}{}:
			taken++
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}
