package auth

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialEnv makes the test binary a client: it connects to the socket named, says so, and stays until its standard input
// ends.
const dialEnv = "RTASK_AUTH_TEST_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("connected")
		io.Copy(io.Discard, os.Stdin)
		c.Close()
		return
	}
	os.Exit(m.Run())
}

func listen(t *testing.T) *net.UnixListener {
	t.Helper()
	dir, err := os.MkdirTemp("", "rtask-auth") // t.TempDir is not for other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for path, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return l
}

// client is a process that is connected.
type client struct {
	conn *net.UnixConn // the listener's end
	pid  int
	end  func() // ends and reaps the process
}

func connect(t *testing.T, attr *syscall.SysProcAttr) client {
	t.Helper()
	l := listen(t)
	// /proc/self/exe: the go command's folder of test binaries is not for other users.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dialEnv+"="+l.Addr().String(), "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("the client: %v", err)
			}
		}
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "connected\n" {
		t.Fatalf("the client says %q: %v", line, err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{conn: c, pid: cmd.Process.Pid, end: end}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root to connect as another user")
	}
}

func TestPeerOfAnotherProcess(t *testing.T) {
	c := connect(t, nil)
	p, err := PeerOf(c.conn, "rtask-nobody-has-this.slice")
	if err != nil {
		t.Fatal(err)
	}
	if int(p.UID) != os.Geteuid() || int(p.GID) != os.Getegid() || int(p.PID) != c.pid || p.InSlice || !p.CgroupKnown {
		t.Errorf("peer is %+v", p)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if !p.In(uint32(g)) {
			t.Errorf("the peer is not in group %d", g)
		}
	}
}

func TestPeerOfAnotherUser(t *testing.T) {
	needRoot(t)
	many := make([]uint32, 300) // more than the first buffer takes
	for i := range many {
		many[i] = uint32(50000 + i)
	}
	for name, cred := range map[string]*syscall.Credential{
		"no groups":   {Uid: 54321, Gid: 54322},
		"some groups": {Uid: 54321, Gid: 54322, Groups: []uint32{54323, 54324}},
		"many groups": {Uid: 54321, Gid: 54322, Groups: many},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, &syscall.SysProcAttr{Credential: cred})
			p, err := PeerOf(c.conn, "")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(p.Groups)
			if p.UID != cred.Uid || p.GID != cred.Gid || !slices.Equal(p.Groups, cred.Groups) || !p.CgroupKnown {
				t.Errorf("peer is %+v", p)
			}
			for _, g := range append(cred.Groups, cred.Gid) {
				if !p.In(g) {
					t.Errorf("the peer is not in group %d", g)
				}
			}
			if p.In(0) || p.In(54325) {
				t.Error("the peer is in a group that it is not in")
			}
		})
	}
}

// cgroup2 returns where the unified hierarchy is mounted.
func cgroup2(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return path
		}
	}
	t.Skip("skipped: no cgroup2 mount")
	return ""
}

func TestPeerInSlice(t *testing.T) {
	needRoot(t)
	slice := fmt.Sprintf("rtask-authtest-%d.slice", os.Getpid())
	root := filepath.Join(cgroup2(t), slice)
	scope := filepath.Join(root, "a.scope", "job")
	if err := os.MkdirAll(scope, 0o755); err != nil {
		t.Skipf("skipped: cannot make a control group: %v", err)
	}
	t.Cleanup(func() {
		for dir := scope; dir != filepath.Dir(root); dir = filepath.Dir(dir) {
			if err := unix.Rmdir(dir); err != nil {
				t.Errorf("cannot remove %s: %v", dir, err)
			}
		}
	})
	f, err := os.Open(scope)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := connect(t, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())})
	for other, want := range map[string]bool{slice: true, "authtest.slice": false, "": false} {
		p, err := PeerOf(c.conn, other)
		if err != nil || p.InSlice != want || !p.CgroupKnown {
			t.Errorf("slice %q: %+v, %v", other, p, err)
		}
	}
	c.end() // before its control group is removed
}

// Who connects and goes away before it is looked at cannot be told from a job, so it is Nobody.
func TestPeerThatIsGone(t *testing.T) {
	c := connect(t, nil)
	c.end()
	p, err := PeerOf(c.conn, "rtask.slice")
	if err != nil {
		t.Fatal(err)
	}
	if p.CgroupKnown || p.InSlice {
		t.Errorf("peer is %+v", p)
	}
	i, err := NewIdentify(Options{OwnUID: uint32(os.Geteuid())})
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Control(p).Kind; got != Nobody {
		t.Errorf("it is %v", got)
	}
	if p, err := PeerOf(c.conn, ""); err != nil || !p.CgroupKnown {
		t.Errorf("without a slice: %+v, %v", p, err)
	}
}

func TestPeerOfSocketpair(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "socketpair")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := PeerOf(c.(*net.UnixConn), "rtask.slice")
	if err != nil || int(p.PID) != os.Getpid() || int(p.UID) != os.Geteuid() {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestPeerOfFails(t *testing.T) {
	l := listen(t)
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if p, err := PeerOf(c.(*net.UnixConn), ""); err == nil {
		t.Errorf("of a closed connection: %+v", p)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if p, err := peerOf(fd, ""); err == nil {
		t.Errorf("of a socket that is not connected: %+v", p)
	}
}

func TestWaitedFor(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Skipf("skipped: no pidfd: %v", err)
	}
	defer unix.Close(fd)
	if waitedFor(fd) {
		t.Error("a process that nobody has waited for has lost its number")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !waitedFor(fd) || !waitedFor(0) {
		t.Error("a process that was waited for has its number")
	}
}

func TestInSlice(t *testing.T) {
	tests := map[string]struct {
		cgroups string
		want    bool
	}{
		"a job":                      {"0::/rtask.slice/rtask-build-1.scope/job-x\n", true},
		"a job of a user's instance": {"0::/user.slice/user-1000.slice/user@1000.service/rtask.slice/rtask-a-1.scope\n", true},
		"seen from a container":      {"0::/../../rtask.slice/rtask-build-1.scope\n", true},
		"the slice itself":           {"0::/rtask.slice\n", true},
		"a removed slice":            {"0::/rtask.slice (deleted)\n", true},
		"a removed scope":            {"0::/rtask.slice/a.scope (deleted)\n", true},
		"systemd on version 1":       {"5:memory:/x\n1:name=systemd:/rtask.slice/rtask-a-1.scope\n", true},
		"a colon in the path":        {"0::/a:b/rtask.slice/c\n", true},
		"no line feed at the end":    {"0::/rtask.slice/c", true},
		"elsewhere":                  {"0::/user.slice/user-1000.slice/session-1.scope\n", false},
		"the root":                   {"0::/\n", false},
		"a longer name":              {"0::/my-rtask.slice/rtask.slice2/xrtask.slice\n", false},
		"a part of a name":           {"0::/system.slice/rtask.service\n", false},
		"not a path":                 {"0:rtask.slice:/\nrtask.slice\n", false},
		"nothing":                    {"", false},
	}
	for name, test := range tests {
		if got := inSlice([]byte(test.cgroups), "rtask.slice"); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestConnContext(t *testing.T) {
	l := listen(t)
	type answer struct {
		peer Peer
		ok   bool
		err  error
	}
	answers := make(chan answer, 1)
	srv := &http.Server{
		ConnContext: ConnContext("rtask-nobody-has-this.slice"),
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			p, ok := PeerFrom(r.Context())
			answers <- answer{p, ok, PeerError(r.Context())}
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://rtask/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if a := <-answers; !a.ok || a.err != nil || int(a.peer.UID) != os.Geteuid() || !a.peer.CgroupKnown {
		t.Errorf("%+v", a)
	}
}

func TestConnContextWithoutAPeer(t *testing.T) {
	ctx := t.Context()
	if _, ok := PeerFrom(ctx); ok || PeerError(ctx) == nil {
		t.Error("a context that saw no connection has a peer")
	}
	tcp, other := net.Pipe()
	defer tcp.Close()
	defer other.Close()
	ctx = ConnContext("rtask.slice")(t.Context(), tcp)
	if _, ok := PeerFrom(ctx); ok || PeerError(ctx) == nil {
		t.Error("a connection that is no Unix socket has a peer")
	}

	c := connect(t, nil)
	ctx = ConnContext("")(t.Context(), tls.Client(c.conn, nil))
	if p, ok := PeerFrom(ctx); !ok || int(p.PID) != c.pid {
		t.Errorf("a wrapped connection: %+v, %v", p, PeerError(ctx))
	}
	c.conn.Close()
	ctx = ConnContext("")(t.Context(), c.conn)
	if _, ok := PeerFrom(ctx); ok || !errors.Is(PeerError(ctx), net.ErrClosed) || !strings.Contains(PeerError(ctx).Error(), "credentials") {
		t.Errorf("a closed connection: %v", PeerError(ctx))
	}
}
