package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/log"
)

// chunk is how much one read takes from a pipe: all that fits into a pipe by default (pipe(7)).
const chunk = 64 << 10

// buffers are what output is read into, one for each stream. The jobs of a shim use them one after the other.
type buffers [2][]byte

// output copies what a job writes to its log, its journal and its reply. The job never waits for any of the three to
// have room: what cannot be kept is counted.
type output struct {
	log     *log.Writer
	readers sync.WaitGroup
	done    chan struct{} // closed when all readers have ended
	pipes   []*os.File
	stdout  *stream
	stderr  *stream // nil where standard error goes the way of standard output
	buffers *buffers
}

// stream is one of the two.
type stream struct {
	kind  log.Stream
	lines lines
	max   int64

	// Only the stream's reader writes the following fields. They are read after it has ended.
	reply     []byte
	truncated bool
	ended     bool // every writer of the pipe was gone
}

// newOutput returns the write ends of the job's pipes, for the job's start; the caller closes them after that. Nothing is
// read before run. What is read goes through b, which nobody else may use until the output is closed.
func newOutput(w *log.Writer, j *journal, b *buffers, redirect bool, maxReply int64, uid, gid int) (o *output, stdout, stderr *os.File, err error) {
	o = &output{log: w, done: make(chan struct{}), buffers: b}
	o.stdout = &stream{kind: log.Stdout, max: maxReply, lines: lines{j: j, stream: "stdout", priority: priorityInfo}}
	stdout, err = o.pipe(uid, gid)
	stderr = stdout
	if err == nil && !redirect {
		o.stderr = &stream{kind: log.Stderr, max: maxReply, lines: lines{j: j, stream: "stderr", priority: priorityInfo}}
		stderr, err = o.pipe(uid, gid)
	}
	if err != nil {
		if stdout != nil {
			_ = stdout.Close() // nothing was written; the first error is the one that says something
		}
		close(o.done)
		err = errors.Join(err, o.close())
		closeFiles(o.pipes)
		return nil, nil, nil, err
	}
	return o, stdout, stderr, nil
}

// run starts reading.
func (o *output) run() {
	for i, s := range []*stream{o.stdout, o.stderr}[:len(o.pipes)] {
		if o.buffers[i] == nil {
			o.buffers[i] = make([]byte, chunk)
		}
		o.readers.Go(func() { o.copy(s, o.pipes[i], o.buffers[i]) })
	}
	go func() {
		o.readers.Wait()
		close(o.done)
	}()
}

// pipe makes a pipe.
func (o *output) pipe(uid, gid int) (*os.File, error) {
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
	return w, nil
}

func (o *output) copy(s *stream, r *os.File, buf []byte) {
	for {
		n, err := r.Read(buf)
		o.take(s, buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.drain(s, r, buf)
		}
		if err != nil {
			s.ended = s.ended || errors.Is(err, io.EOF)
			break
		}
	}
	s.lines.flush()
}

// take puts a piece where it belongs.
func (o *output) take(s *stream, p []byte) {
	if len(p) == 0 {
		return
	}
	o.log.Write(s.kind, p)
	s.keep(p)
	s.lines.write(p)
}

// drain reads what is in a pipe after close has ended waiting for more: everything that the job wrote, however late this
// process got to run. It takes no more than a pipe holds, since a writer that is not the job's may go on for ever.
func (o *output) drain(s *stream, r *os.File, buf []byte) {
	raw, err := r.SyscallConn()
	if err != nil {
		return // the file is closed, so there is nothing to read
	}
	// Control does not ask for the deadline, which is over.
	_ = raw.Control(func(fd uintptr) {
		size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		for left := size; err == nil && left > 0; {
			var n int
			n, err = unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				err = nil
				continue
			}
			if n <= 0 {
				s.ended = err == nil // else EAGAIN
				return
			}
			o.take(s, buf[:n])
			left -= n
		}
	})
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

// ended reports whether all output was read to its end. It may be called after close.
func (o *output) ended() bool { return o.stdout.ended && (o.stderr == nil || o.stderr.ended) }

// close reads what is there, and waits for no more, also where a process that is not the job's holds a pipe. The pipes are the
// caller's to close then.
func (o *output) close() error {
	var err error
	for _, p := range o.pipes {
		err = errors.Join(err, p.SetReadDeadline(time.Unix(1, 0)))
	}
	<-o.done
	return err
}

// closeFiles closes what no message but Start should bring.
func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written to it
	}
}
