// Package companion starts the gateway beside an engine that runs in the foreground (`rtaskd run`). Where systemd runs
// the two, it is not used.
//
// It starts a program of rtask's own, not a job, which is why it may start a process outside of package sandbox. Only
// package daemon imports it.
package companion

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Options are the gateway to start.
type Options struct {
	// Path is the program rtask-gateway.
	Path string
	// APIAddress, HTTPSAddress, RemoteAddress and MetricsAddress are host:port; HTTPSAddress and RemoteAddress may be empty: not served.
	APIAddress, HTTPSAddress, RemoteAddress, MetricsAddress string
	// HTTPSCert and HTTPSKey are the files of the certificate and the key of HTTPS. The gateway gets what is in them, since its
	// user may not read them.
	HTTPSCert, HTTPSKey string
	// RemoteKey is the file of the key of RemoteAddress, and RemoteCert, if it is not empty, that of the certificate of another authority.
	// Where RemoteKey is empty, the key is in KeptKey, once there is an authority.
	RemoteKey, RemoteCert, KeptKey string
	// Avoid says which numbers of users are somebody else's, though the machine's user database does not know; nil: none.
	Avoid func(uid uint32) bool

	choose   sync.Once
	uid, gid uint32 // as chosen

	cmd  *exec.Cmd
	done chan error
}

// gatewayUser is who the gateway runs as, when root starts it and there is such a user.
const gatewayUser = "rtask-gateway"

// firstUID and lastUID are the numbers of which systemd takes users for DynamicUser=, so that nobody else has them (systemd's
// UIDS-GIDS.md).
const firstUID, lastUID = 61184, 65519

// Credentials are the numbers of the gateway's user and group; false: they are the engine's own. Without a user of its own the
// gateway gets a number that nobody else has, as with DynamicUser= of systemd.exec(5), for as long as this process runs: files and
// processes of nobody's are not its to touch.
func (o *Options) Credentials() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	o.choose.Do(func() {
		if u, err := user.Lookup(gatewayUser); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err1 == nil && err2 == nil && uid != 0 {
				o.uid, o.gid = uint32(uid), uint32(gid)
				return
			}
		}
		o.uid = o.free()
		o.gid = o.uid
	})
	return o.uid, o.gid, true
}

// free returns a number of the range, at random, that no user, group or process has, and that Avoid is not for.
func (o *Options) free() uint32 {
	taken := map[uint32]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*") // without /proc, what is known of users has to do
	for _, p := range processes {
		if fi, err := os.Stat(p); err == nil {
			taken[fi.Sys().(*syscall.Stat_t).Uid] = true
		}
	}
	const n = lastUID - firstUID + 1
	first := rand.Uint32N(n)
	for i := range uint32(n) {
		uid := firstUID + (first+i)%n
		name := strconv.FormatUint(uint64(uid), 10)
		_, userErr := user.LookupId(name)
		_, groupErr := user.LookupGroupId(name)
		if userErr != nil && groupErr != nil && !taken[uid] && (o.Avoid == nil || !o.Avoid(uid)) {
			return uid
		}
	}
	return firstUID + first // all are taken, which no machine comes to
}

// Start starts the gateway, to talk to the engine at a socket. The channel gets how it ended.
func (o *Options) Start(engine string) (<-chan error, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if uid, gid, ok := o.Credentials(); ok {
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
	if o.RemoteAddress != "" {
		cmd.Args = append(cmd.Args, "--remote-address", o.RemoteAddress, "--remote-fd")
		key, err := o.remoteKey()
		if err != nil {
			return nil, err
		}
		defer key.Close()
		cmd.ExtraFiles = []*os.File{key}
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

// remoteKey is a pipe from which the gateway reads what is in RemoteCert and RemoteKey, and nobody else can.
func (o *Options) remoteKey() (*os.File, error) {
	var cert []byte
	key, err := os.ReadFile(cmp.Or(o.RemoteKey, o.KeptKey))
	if o.RemoteKey == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil // the gateway says that there is none
	}
	if err == nil && o.RemoteCert != "" {
		cert, err = os.ReadFile(o.RemoteCert)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key and the certificate for remote clients: %w", err)
	}
	var b []byte
	if len(key) > 0 {
		b = slices.Concat(cert, []byte("\n"), key)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start the gateway: %w", err)
	}
	go func() { // until it was read, or nobody can read it any more
		_, _ = w.Write(b)
		_ = w.Close()
	}()
	return r, nil
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
