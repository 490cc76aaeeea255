// Package shim is the process that stays with a job: it starts the job's process confined, copies its output, ends it
// when told to or when its time is up, and says how it ended. It outlives the engine: what an engine that died cannot be
// told is written down for the next one.
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/wire"
)

// socketFD is where the engine's socket is when a shim starts.
const socketFD = 3

// ackTimeout is how long a shim that has told its engine the end of a job waits to hear that this was understood. After
// it (an engine that was stopped with SIGSTOP, say) the shim writes the record itself.
const ackTimeout = 5 * time.Second

// Run is a shim's life: wait for a job on the inherited socket, run it, report it. It returns nil when the job was
// reported, whatever came of the job, and when the engine went away before there was one.
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
	// Caught from the first moment, never ignored: what is ignored is inherited. A signal before there is a job ends the
	// shim, as nothing was begun.
	s.signals = make(chan os.Signal, 4)
	signal.Notify(s.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(s.signals)
	s.receive(conn)
	defer s.stopReceiving()

	select {
	case ev := <-s.events:
		if errors.Is(ev.err, io.EOF) {
			return nil // the end of the socket means "abort", never "go"
		}
		if ev.err != nil {
			return ev.err
		}
		if ev.message.Start == nil || len(ev.files) != 2 {
			return fmt.Errorf("cannot begin: %w", wire.ErrMessage)
		}
		return s.run(ev.message.Start, ev.files[0], ev.files[1])
	case <-s.signals:
		return nil
	}
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
