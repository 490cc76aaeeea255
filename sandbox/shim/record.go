package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wire"
)

const (
	// recordAgain is the time between two attempts to write a record that nobody else has.
	recordAgain = 2 * time.Second
	// recordTime is when a shim gives up a record that cannot be written: long enough to make room on a full disk.
	recordTime = time.Hour
)

// report hands the end of the job to the engine, or to the disk.
func (j *job) report(exit *spec.Exit) error {
	recorded := false
	if j.spec.RecordAlways {
		if err := writeRecord(j.spec.Record, exit); err != nil {
			exit.Detail = strings.TrimPrefix(exit.Detail+"; "+err.Error(), "; ")
		} else {
			recorded = true
		}
	}
	j.tell(wire.Message{Ended: exit})
	if j.acknowledged(exit) || recorded {
		return nil
	}
	return j.persist(exit)
}

// acknowledged waits for the engine to have taken over the end of the job.
func (j *job) acknowledged(exit *spec.Exit) bool {
	t := time.NewTimer(ackTimeout)
	defer t.Stop()
	for j.conn != nil {
		select {
		case ev := <-j.events:
			if j.answer(ev, exit) {
				return true
			}
		case <-t.C:
			return false
		}
	}
	return false
}

// answer does what an engine asks for after the job has ended, and reports whether it took over the end of the job.
func (j *job) answer(ev event, exit *spec.Exit) bool {
	closeFiles(ev.files)
	switch {
	case ev.err != nil:
		if ev.conn == j.conn {
			j.conn = nil
		}
	case ev.message.Hello != nil && ev.message.Hello.Job == exit.Job:
		j.conn = ev.conn
		j.tell(wire.Message{Ended: exit})
	case ev.message.Ack != nil:
		return ev.message.Ack.Job == exit.Job
	}
	return false
}

// persist writes the record for an engine that comes back. The record is all that is known of the job's end, so where it
// cannot be written (a full disk) that is tried again for a long time; an engine that comes back meanwhile is told.
func (j *job) persist(exit *spec.Exit) error {
	giveUp := time.NewTimer(recordTime)
	defer giveUp.Stop()
	again := time.NewTicker(recordAgain)
	defer again.Stop()
	for {
		err := writeRecord(j.spec.Record, exit)
		if err == nil || !mayPass(err) {
			return err
		}
		for waiting := true; waiting; {
			select {
			case ev := <-j.events:
				if j.answer(ev, exit) {
					return nil
				}
			case <-again.C:
				waiting = false
			case <-j.signals:
				return err
			case <-giveUp.C:
				return err
			}
		}
	}
}

// mayPass reports whether err is what somebody can be expected to do something about.
func mayPass(err error) bool {
	for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// writeRecord writes how a job ended where an engine that comes back finds it: whole or not at all, and on disk when it
// returns (temporary file, fsync, rename, fsync of the folder).
func writeRecord(path string, exit *spec.Exit) (err error) {
	b, err := exit.Encode()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".exit-*")
	if err != nil {
		return fmt.Errorf("cannot write the exit record: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write the exit record: %w", err), os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync the exit record: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("cannot sync the exit record: %w", err)
	}
	return nil
}
