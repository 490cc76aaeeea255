// Package shim is the process that stays with a slot: it starts the slot's jobs confined, one after the other, copies what
// they write, ends them when told to or when their time is up, and says how they ended. It outlives the engine: what an
// engine that died cannot be told is written down for the next one.
//
// It reads no configuration, decides nothing and opens no network connection. Only cmd/rtask-shim may import it.
package shim

import (
	"fmt"
	"os"
	"os/signal"

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
