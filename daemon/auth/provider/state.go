package provider

import "time"

// State is what is known of a provider's keys.
type State struct {
	Settings
	// Keys is how many there are, and Fetched when they were fetched; zero: nobody fetches them, or nobody has.
	Keys    int
	Fetched time.Time
	// Expired says that they are too old to be used.
	Expired bool
	// Problem is why there are none, or why the last ones could not be replaced.
	Problem error
}

// States returns the providers in the order in which they were configured.
func (s *Set) States() (all []State) {
	now := time.Now()
	for _, p := range *s.providers.Load() {
		keys, err := p.source.keys(now, lookSoon)
		if err == nil {
			err = p.source.problem()
		}
		all = append(all, State{Settings: p.Settings, Keys: len(keys.keys), Fetched: keys.fetched, Expired: len(keys.keys) > 0 && p.tooOld(keys, now), Problem: err})
	}
	return all
}

// problem is why the last look at the file gave no new keys.
func (s *source) problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
