package client_test

import "golang.org/x/sys/unix"

// listenNarrow listens on a Unix socket with the shortest accept queue.
func listenNarrow(path string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.Listen(fd, 0)
	}
	return fd, err
}
