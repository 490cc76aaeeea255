package auth

import "context"

// rank says who is served first by a budget.
type rank int

const (
	// unknownID is a key whose id there is not, which costs a hash all the same.
	unknownID rank = iota
	// knownID is a key that may be good.
	knownID
	// passedBefore is a text that was good before.
	passedBefore
)

// budget hands out a bounded amount of memory, first come first served within a rank. Of each of the lower ranks one at a
// time stands with the highest, so that nobody waits behind many of a lower rank.
type budget struct {
	total uint32
	// lines are held by those that do, by rank.
	lines [passedBefore]chan struct{}
	// turn is held while units are taken one by one, so that two takers cannot each hold half and wait for the other.
	turn chan struct{}
	// units has one element for each unit that is out.
	units chan struct{}
}

func newBudget(total uint32) *budget {
	b := &budget{total: total, turn: make(chan struct{}, 1), units: make(chan struct{}, total)}
	for i := range b.lines {
		b.lines[i] = make(chan struct{}, 1)
	}
	return b
}

// take waits for n units and returns what gives them back. More than there are is all there are. It returns the
// context's error if that ends first.
func (b *budget) take(ctx context.Context, n uint32, of rank) (release func(), err error) {
	if of < passedBefore {
		select {
		case b.lines[of] <- struct{}{}:
			defer func() { <-b.lines[of] }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
