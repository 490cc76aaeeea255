package shim

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/log"
)

// chunk is how much is read from a pipe at once: all that fits into one by default (pipe(7)).
const chunk = 64 << 10

// output copies what a job writes to its log, its journal and its reply. The job never waits for any of the three to
// have room: what cannot be kept is counted.
type output struct {
	log     *log.Writer
	readers sync.WaitGroup
	done    chan struct{} // closed when all readers have ended
	pipes   []*os.File
	stdout  *stream
	stderr  *stream // nil where standard error goes the way of standard output
}

// stream is one of the two.
type stream struct {
	kind  log.Stream
	lines lines
	max   int64

	// reply is written by the stream's reader alone, and read after that has ended.
	reply     []byte
	truncated bool
}

// newOutput returns the write ends of the job's pipes, for the job's start; the caller closes them after that.
func newOutput(w *log.Writer, j *journal, redirect bool, maxReply int64, uid, gid int) (o *output, stdout, stderr *os.File, err error) {
	o = &output{log: w, done: make(chan struct{})}
	o.stdout = &stream{kind: log.Stdout, max: maxReply, lines: lines{j: j, stream: "stdout", priority: priorityInfo}}
	stdout, err = o.pipe(o.stdout, uid, gid)
	stderr = stdout
	if err == nil && !redirect {
		o.stderr = &stream{kind: log.Stderr, max: maxReply, lines: lines{j: j, stream: "stderr", priority: priorityInfo}}
		stderr, err = o.pipe(o.stderr, uid, gid)
	}
	go func() {
		o.readers.Wait()
		close(o.done)
	}()
	if err != nil {
		if stdout != nil {
			_ = stdout.Close() // nothing was written; the first error is the one that says something
		}
		return nil, nil, nil, errors.Join(err, o.close())
	}
	return o, stdout, stderr, nil
}

// pipe makes a pipe and starts its reader.
func (o *output) pipe(s *stream, uid, gid int) (*os.File, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	w := os.NewFile(uintptr(p[1]), "pipe")
	// A job may open /dev/stdout by its name, and is then asked for permission as for any file.
	err := unix.Fchown(p[1], uid, gid)
	if err == nil {
		// The read end alone, so that the reader can be interrupted; the job's end blocks as it expects.
		err = unix.SetNonblock(p[0], true)
	}
	r := os.NewFile(uintptr(p[0]), "pipe")
	if err != nil {
		_, _ = r.Close(), w.Close() // nothing was written
		return nil, fmt.Errorf("cannot set up a pipe: %w", err)
	}
	o.pipes = append(o.pipes, r)
	o.readers.Go(func() { o.copy(s, r) })
	return w, nil
}

func (o *output) copy(s *stream, r *os.File) {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			o.log.Write(s.kind, buf[:n])
			s.keep(buf[:n])
			s.lines.write(buf[:n])
		}
		if err != nil {
			break // the end, or the deadline that close sets
		}
	}
	s.lines.flush()
}

func (s *stream) keep(p []byte) {
	room := s.max - int64(len(s.reply))
	if int64(len(p)) > room {
		s.truncated = true
		p = p[:max(room, 0)]
	}
	s.reply = append(s.reply, p...)
}

// wait returns true when all writers of the pipes are gone and everything was read, or false after limit; reading goes on.
func (o *output) wait(limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-o.done:
		return true
	case <-t.C:
		return false
	}
}

// close ends reading, also where a process that is not the job's holds a pipe, and closes the pipes.
func (o *output) close() error {
	var err error
	for _, p := range o.pipes {
		err = errors.Join(err, p.SetReadDeadline(time.Unix(1, 0)))
	}
	<-o.done
	for _, p := range o.pipes {
		err = errors.Join(err, p.Close())
	}
	return err
}
