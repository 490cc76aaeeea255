package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// Package os would put each of the files here into the runtime's poller, since they can be polled, and then take EAGAIN, with which
// memory.reclaim says that it did not get all, for a reason to wait.

// open opens a file.
func open(path string, flags int) (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, 0) }

// read returns what is in a file.
func read(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 512)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
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

// write makes one write(2) to a file.
func write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("cannot open a control group file: %s: %w", path, err)
	}
	_, err = unix.Write(fd, []byte(value))
	if err := errors.Join(err, unix.Close(fd)); err != nil {
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
