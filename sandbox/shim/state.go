package shim

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rtask/rtask/sandbox/cgroup"
	"github.com/rtask/rtask/sandbox/jail"
	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

// shim is the state of the process. All of it belongs to the goroutine of Run, but for what goes through channels.
type shim struct {
	conn     *wire.Conn // the engine, nil while there is none
	listener *net.UnixListener
	mu       sync.Mutex   // guards conns and ending
	conns    []*wire.Conn // all there ever were, for the end
	ending   bool         // no connection is taken any more
	workers  sync.WaitGroup
	events   chan event
	quit     chan struct{}
	signals  chan os.Signal

	place    *place     // nil before the first job
	buffers  buffers    // for output
	spent    []*os.File // of the job that has ended, to be closed
	journald *journald  // nil: none, or not asked for yet
	unfit    bool       // what the last job left cannot be cleared away, so there is no other job here
	pending  []pending  // ends of jobs that only this shim knows
	failed   error      // of writing those down
}

// refuse says that the shim has no such job.
func (s *shim) refuse(conn *wire.Conn, id string) {
	_ = conn.Send(wire.Message{Refused: &wire.Refused{Job: id}}) // an engine that is gone does not wait for it
}

// event is something an engine sent, or the end of its connection.
type event struct {
	conn    *wire.Conn
	message wire.Message
	files   []*os.File
	err     error
}

// receive passes on what comes over conn, until it ends or the shim does. A peer that sends what is no message is hung up
// on, so that it does not wait for an answer.
func (s *shim) receive(conn *wire.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		_ = conn.Close() // the peer finds the job's record
		return
	}
	s.conns = append(s.conns, conn)
	s.workers.Go(func() {
		for {
			m, files, err := conn.Receive()
			if err != nil {
				_ = conn.Close() // the peer is gone already, or of no use
			}
			select {
			case s.events <- event{conn, m, files, err}:
			case <-s.quit:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// listen lets an engine that comes back connect.
func (s *shim) listen(path string) error {
	if path == "" || s.listener != nil {
		return nil
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("cannot listen for the engine: %w", err)
	}
	s.listener = l
	s.workers.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return // the shim ends
			}
			conn, err := wire.NewConn(c)
			if err != nil {
				_ = c.Close() // the first error is the one that says something
				continue
			}
			if trusted(conn) {
				s.receive(conn)
			} else {
				_ = conn.Close() // a stranger learns nothing
			}
		}
	})
	return nil
}

// trusted reports whether the peer is of the shim's own user. The socket's folder keeps others out already.
func trusted(c *wire.Conn) bool {
	peer, err := c.Peer()
	return err == nil && int(peer.Uid) == os.Geteuid()
}

// stopReceiving ends all goroutines and connections.
func (s *shim) stopReceiving() {
	close(s.quit)
	if s.listener != nil {
		_ = s.listener.Close() // it also removes the socket's file; a left one is found dead and removed by the engine
	}
	s.mu.Lock()
	s.ending = true
	for _, c := range s.conns {
		_ = c.Close() // everything that mattered was acknowledged
	}
	s.mu.Unlock()
	s.workers.Wait()
}

// tell sends to the engine, if there is one. An engine that cannot be told is gone, and comes back or does not.
func (s *shim) tell(m wire.Message) {
	if s.conn == nil {
		return
	}
	if err := s.conn.Send(m); err != nil {
		s.conn = nil
	}
}

// place is what the jobs of a shim share.
type place struct {
	groups  *cgroup.Tree  // nil where there are no control groups
	score   *string       // a job's OOM score
	ignored []int         // signals that a job is not to ignore
	room    *jail.Room    // nil: the machine's own namespaces
	filters []jail.Filter // of system calls
	ready   bool          // filters are made
	mdwe    bool          // this process, and so every job, cannot make memory executable that it can write to
}

// pending is the end of a job that only this shim knows.
type pending struct {
	exit *spec.Exit
	path string
	// due is when the shim writes it to disk, giveUp when it stops trying.
	due, giveUp time.Time
}
