package job

import (
	"context"
	"errors"
	"testing"
)

// Between Drain and Accept nothing new starts; what runs ends by itself, and then the Manager is drained.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	m := openIn(t, dir)
	if ok, err := m.Drained(t.Context()); ok || err != nil {
		t.Fatalf("not draining: %v, %v", ok, err)
	}
	first, second := start(t, m, sh("sleep 1000")), start(t, m, sh("sleep 1000"))
	m.Drain()
	m.Drain() // changes nothing
	if !m.Draining() {
		t.Error("it is not draining")
	}
	if _, err := m.Start(t.Context(), sh("true")); !errors.Is(err, ErrDraining) {
		t.Errorf("Start: %v", err)
	}
	impatient, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if ok, err := m.Drained(impatient); ok || !errors.Is(err, why) {
		t.Errorf("%v, %v", ok, err)
	}
	drained := func() chan bool {
		c := make(chan bool)
		go func() {
			ok, err := m.Drained(t.Context())
			c <- ok && err == nil
		}()
		return c
	}
	cancelled := drained()
	m.Accept()
	m.Accept() // likewise
	if <-cancelled {
		t.Error("drained, though jobs run and are accepted")
	}
	third := start(t, m, sh("sleep 1000"))
	m.Drain()
	done := drained()
	for _, j := range []Job{first, second, third} {
		select {
		case <-done:
			t.Fatal("drained, though jobs run")
		default:
		}
		if _, err := m.Stop(t.Context(), j.ID, StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	if !<-done {
		t.Error("not drained")
	}
	// Draining is over with the engine.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = openIn(t, dir)
	defer end(t, m)
	if m.Draining() {
		t.Error("the next Manager is draining")
	}
	j := start(t, m, sh("sleep 1000"))
	m.Drain()
	done = drained()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if <-done {
		t.Error("drained by Close")
	}
	m = openIn(t, dir)
	if _, err := m.Stop(t.Context(), j.ID, StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	end(t, m)
}
