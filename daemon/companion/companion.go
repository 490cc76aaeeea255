// Package companion starts the gateway beside an engine that runs in the foreground (`rtaskd run`). Where systemd runs
// the two, it is not used.
//
// It starts a program of rtask's own, not a job, which is why it may start a process outside of package sandbox. Only
// package daemon imports it.
package companion

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Options are the gateway to start.
type Options struct {
	// Path is the program rtask-gateway.
	Path string
	// APIAddress, HTTPSAddress and MetricsAddress are host:port; HTTPSAddress may be empty: not served.
	APIAddress, HTTPSAddress, MetricsAddress string
	// HTTPSCert and HTTPSKey are the files of the certificate and the key of HTTPS. The gateway gets what is in them, since its
	// user may not read them.
	HTTPSCert, HTTPSKey string

	cmd  *exec.Cmd
	done chan error
}

// users are who the gateway runs as, when root starts it: the first that exists.
func users() []string { return []string{"rtask-gateway", "nobody"} }

// User is the name of the gateway's user, "" where that is the engine's own.
func (o *Options) User() string {
	if os.Geteuid() != 0 {
		return ""
	}
	for _, name := range users() {
		if _, err := user.Lookup(name); err == nil {
			return name
		}
	}
	return ""
}

// Credentials are User's numbers, and false where there is no such user.
func (o *Options) Credentials() (uid, gid uint32, ok bool) {
	u, err := user.Lookup(o.User())
	if err != nil {
		return 0, 0, false
	}
	uid64, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid64, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(uid64), uint32(gid64), err1 == nil && err2 == nil
}

// Start starts the gateway, to talk to the engine at a socket. The channel gets how it ended.
func (o *Options) Start(engine string) (<-chan error, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		uid, gid, ok := o.Credentials()
		if !ok {
			return nil, errors.New("cannot start the gateway: root needs a user rtask-gateway or nobody to run it as")
		}
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{}}
	}
	cmd := exec.Command(o.Path, "--engine", engine, "--api-address", o.APIAddress, "--metrics-address", o.MetricsAddress)
	if o.HTTPSAddress != "" {
		both, err := o.certificate()
		if err != nil {
			return nil, err
		}
		cmd.Args = append(cmd.Args, "--https-address", o.HTTPSAddress, "--https-stdin")
		cmd.Stdin = bytes.NewReader(both)
	}
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	for _, name := range []string{"GO_LOG", "RTASK_LOG", "JOURNAL_STREAM"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the gateway: %w", err)
	}
	o.cmd, o.done = cmd, make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		ended <- err
		o.done <- err
	}()
	return ended, nil
}

// certificate is what is in HTTPSCert and HTTPSKey, one behind the other.
func (o *Options) certificate() ([]byte, error) {
	cert, err := os.ReadFile(o.HTTPSCert)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate of HTTPS: %w", err)
	}
	key, err := os.ReadFile(o.HTTPSKey)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of HTTPS: %w", err)
	}
	return slices.Concat(cert, []byte("\n"), key), nil
}

// Stop ends the gateway and waits for it.
func (o *Options) Stop() {
	if o.cmd == nil {
		return
	}
	_ = o.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	t := time.AfterFunc(5*time.Second, func() { _ = o.cmd.Process.Kill() })
	defer t.Stop()
	<-o.done
}
