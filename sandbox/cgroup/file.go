package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/nonblock"
	"github.com/rtask/rtask/sandbox/spec"
)

// The files here are small, are there or not, and make nobody wait (see package nonblock), but for memory.reclaim. Package os would
// put each into the runtime's poller and out again, at thrice the system calls, and a job needs a dozen of them.

// open opens a file.
func open(path string, flags int) (int, error) { return nonblock.Open(path, flags, 0) }

// read returns what is in a file.
func read(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer nonblock.Close(fd)
	b := make([]byte, 0, 512)
	for {
		n, err := nonblock.Read(fd, b[len(b):cap(b)])
		switch {
		case err != nil:
			return nil, fmt.Errorf("cannot read %s: %w", path, err)
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// write writes to a file that takes it at once.
func write(dir, file, value string) error { return writeBy(nonblock.Write, dir, file, value) }

// writeBy makes one write(2) by way of call.
func writeBy(call func(fd int, p []byte) (int, error), dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("cannot open a control group file: %s: %w", path, err)
	}
	_, err = call(fd, []byte(value))
	if err := errors.Join(err, nonblock.Close(fd)); err != nil {
		return fmt.Errorf("cannot write %q to a control group file: %s: %w", value, path, err)
	}
	return nil
}

// single reads a file with one number; "max" is spec.Infinity.
func single(dir, file string) (uint64, error) {
	b, err := read(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return spec.Infinity, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// keyed reads one value of a flat keyed file.
func keyed(dir, file, key string) (uint64, error) {
	b, err := read(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+" "); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}
