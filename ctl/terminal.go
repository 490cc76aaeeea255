package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tty is the terminal that the process belongs to, whatever its standard input is (tty(4)).
const tty = "/dev/tty"

// lineMax is the longest line that is read from a terminal, in bytes; that of the kernel (termios(3)).
const lineMax = 4096

// canAsk reports whether there is a person to ask: the process has a terminal, is in its foreground, and standard input or standard error
// is a terminal, too. Without that nobody is asked, so that nothing ever waits for an answer that does not come.
func (a *app) canAsk() bool {
	if !isTerminal(a.stdin) && !isTerminal(a.stderr) {
		return false
	}
	f, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only looked at
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	front := false
	err = conn.Control(func(fd uintptr) {
		group, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		front = err == nil && group == unix.Getpgrp() // another one is stopped when it reads
	})
	return err == nil && front
}

// ask prints a question on the terminal and returns the line that is typed, with echo or without. It ends with ctx: a signal must not
// leave a terminal without echo behind.
func (a *app) ask(ctx context.Context, prompt string, echo bool) (line []byte, err error) {
	f, err := os.OpenFile(tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot ask on the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !echo {
		restore, err := quiet(f)
		if err != nil {
			return nil, fmt.Errorf("cannot ask on the terminal: %w", err)
		}
		defer func() {
			restore()
			_, _ = f.WriteString("\n") // that which was typed did not show
		}()
	}
	if _, err := f.WriteString(shown(prompt)); err != nil {
		return nil, fmt.Errorf("cannot ask on the terminal: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	one := make([]byte, 1)
	for len(line) < lineMax {
		n, err := f.Read(one)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil || n == 0: // the end of input, Ctrl-D
			return nil, errors.New("nothing was typed")
		case one[0] == '\n':
			return line, nil
		}
		line = append(line, one[0])
	}
	return nil, fmt.Errorf("the line is longer than %d bytes", lineMax)
}

// quiet turns the echo of a terminal off and returns what turns it on again.
func quiet(f *os.File) (restore func(), err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var old *unix.Termios
	set := func(flags func(unix.Termios) unix.Termios) (err error) {
		failed := conn.Control(func(fd uintptr) {
			if old == nil {
				if old, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
					return
				}
			}
			now := flags(*old)
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &now)
		})
		return errors.Join(failed, err)
	}
	if err := set(func(t unix.Termios) unix.Termios { t.Lflag &^= unix.ECHO; return t }); err != nil {
		return nil, err
	}
	return func() { _ = set(func(t unix.Termios) unix.Termios { return t }) }, nil
}

// confirm asks a question that is answered with yes or no. Anything but a yes is a no.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	line, err := a.ask(ctx, question+" [y/N] ", true)
	if err != nil {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(string(line)))
	return answer == "y" || answer == "yes", nil
}
