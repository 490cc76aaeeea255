// Package shim is the process that stays with a slot: it starts the slot's jobs confined, one after the other, copies what
// they write, ends them when told to or when their time is up, and says how they ended. It outlives the engine: what an
// engine that died cannot be told is written down for the next one.
//
// It reads no configuration, decides nothing and opens no network connection. Only cmd/rtask-shim may import it.
package shim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/wire"
)

// socketFD is where the engine's socket is when a shim starts.
const socketFD = 3

// Run is a shim's life: wait for a job on the inherited socket, run it, report it, wait for the next. It returns nil when
// no engine is there any more and every job was reported, whatever came of the jobs. The end of the socket means "no job",
// never "go".
func Run() error {
	conn, err := wire.FromFile(os.NewFile(socketFD, "engine"))
	if err != nil {
		return fmt.Errorf("rtask-shim is started by rtaskd, not by hand: %w", err)
	}
	// Nothing of this process is the job's to read (proc_pid_mem(5), ptrace(2)).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become undumpable: %w", err)
	}
	s := &shim{events: make(chan event), quit: make(chan struct{}), conn: conn}
	// Caught from the first moment, never ignored: what is ignored is inherited. A signal while there is no job ends the
	// shim: nothing is begun.
	s.signals = make(chan os.Signal, 4)
	signal.Notify(s.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(s.signals)
	s.receive(conn)
	defer s.stopReceiving()
	return s.serve()
}

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

// serve runs job after job while an engine is there, and goes on until every end is in good hands.
func (s *shim) serve() error {
	for len(s.pending) > 0 || s.conn != nil && !s.unfit {
		due, stop := s.due()
		select {
		case ev := <-s.events:
			if start := ev.message.Start; start != nil && ev.conn == s.conn && len(ev.files) == 2 && !s.unfit {
				s.run(start, ev.files[0], ev.files[1])
			} else if s.handle(ev); start != nil {
				s.refuse(ev.conn, start.Job.ID)
			}
		case <-due:
			s.writePending()
		case <-s.signals:
			stop()
			s.pendingNow()
			return s.failed
		}
		stop()
	}
	return s.failed
}

// handle does what can be asked for at any time, whatever runs, and reports whether it was that.
func (s *shim) handle(ev event) bool {
	closeFiles(ev.files)
	switch m := ev.message; {
	case ev.err != nil:
		if ev.err != nil && !errors.Is(ev.err, io.EOF) && ev.conn == s.conn {
			s.failed = errors.Join(s.failed, ev.err)
		}
		if ev.conn == s.conn {
			s.conn = nil
			// The next engine finds the ends that this one did not hear of.
			s.pendingNow()
		}
	case m.Ack != nil:
		s.acknowledged(m.Ack.Job)
	case m.Hello != nil:
		// What is asked for by another connection than the engine's own is answered there: there may be one for each job.
		if exit := s.pendingExit(m.Hello.Job); exit != nil {
			_ = ev.conn.Send(wire.Message{Ended: exit}) // an engine that is gone again finds the record
		} else {
			s.refuse(ev.conn, m.Hello.Job)
		}
	default:
		return false
	}
	return true
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
