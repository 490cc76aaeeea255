package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rtask/rtask/daemon/auth"
)

// Each user has so many connections and no more; who is not held to it is not.
func TestConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	inner, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := perUser(inner, "", 3, 4, func(c *counted) bool {
		p, err := c.Peer()
		return err == nil && p.UID == 4713
	}).(*limited)
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, ok := auth.PeerFrom(r.Context())
			fmt.Fprint(w, p.UID, ok)
		}),
		ConnContext: auth.ConnContext(""),
	}
	go s.Serve(l)
	defer s.Close()
	get := func() string {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
		r, err := c.Get("http://x/")
		if err != nil {
			return ""
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	own := fmt.Sprint(os.Geteuid(), true)
	for range 5 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := get(); got != own {
		t.Errorf("the engine's own user: %q", got)
	}
	// The counting itself.
	var open []*counted
	take := func(uid uint32, known bool) bool {
		// The other end is not read: the connection is there to be closed.
		pair, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c := &counted{UnixConn: pair.(*net.UnixConn), of: l, holder: holder{uid, known}}
		ok := l.take(c)
		open = append(open, c)
		return ok
	}
	for range 3 {
		if !take(4711, true) {
			t.Error("one too few")
		}
	}
	if take(4711, true) || !take(4712, true) {
		t.Error("not by user")
	}
	for range 3 { // a job of that user, which may not use rtask
		if !take(4711, false) {
			t.Error("a user's jobs have its own connections, or none")
		}
	}
	if take(4711, false) || !l.full(4711) || l.full(4712) {
		t.Error("a user's jobs are not held to a number")
	}
	open[0].Close()
	open[0].Close()
	if !take(4711, true) || take(4711, true) {
		t.Error("given back, but not one")
	}
	// Who may not use rtask has so many with all others of the kind, and the oldest makes room.
	first := len(open)
	for uid := range uint32(10) {
		if !take(5000+uid, false) {
			t.Errorf("stranger %d is not let in", uid)
		}
	}
	for i, c := range open[first:] {
		if c.counts != (i >= 6) {
			t.Errorf("stranger %d is let in: %v", i, c.counts)
		}
	}
	if l.strangers.Len() != 4 {
		t.Errorf("%d strangers", l.strangers.Len())
	}
	for _, c := range open {
		c.Close()
	}
	l.mu.Lock()
	if len(l.open) != 0 || l.strangers.Len() != 0 {
		t.Errorf("%v, %d", l.open, l.strangers.Len())
	}
	l.mu.Unlock()
	if os.Geteuid() != 0 {
		t.Skip("only root can connect as another user")
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3 to connect with as another user")
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// Connects until one is closed on it, gives one back, and asks over the next who it is.
	const script = `
import os, socket, sys, time
path, cwd = sys.argv[1], os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
os.fchdir(cwd); os.setgroups([]); os.setgid(4713); os.setuid(4713)
def ask():
    s = socket.socket(socket.AF_UNIX); s.connect(os.path.basename(path))
    try: s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"); return s, s.recv(4096)
    except OSError: return s, b""
open = [ask() for _ in range(5)]
print([b"4713 true" in a for _, a in open])
open[0][0].close()
for _ in range(100):
    s, a = ask()
    if a: break
    time.sleep(0.02)
print(b"4713 true" in a)
`
	// Strangers of many users take nothing away from it.
	const strangers = `
import os, socket, sys, time
path, cwd = sys.argv[1], os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
os.fchdir(cwd); os.setgroups([])
open = []
for uid in range(5000, 5020):
    os.setresuid(uid, uid, 0)
    for _ in range(3):
        s = socket.socket(socket.AF_UNIX); s.connect(os.path.basename(path)); open.append(s)
    os.setresuid(0, 0, 0)
def closed(s):
    try: return s.recv(1) == b""
    except BlockingIOError: return False
    except OSError: return True
deadline = time.time() + 30
while time.time() < deadline:
    for s in open: s.setblocking(False)
    left = [s for s in open if not closed(s)]
    if len(left) == 4 and left == open[-4:]: break
    time.sleep(0.02)
print(len(left), left == open[-4:])
`
	if out, err := exec.Command("python3", "-c", strangers, path).CombinedOutput(); err != nil || string(out) != "4 True\n" {
		t.Errorf("strangers: %s%v", out, err)
	}
	out, err := exec.Command("python3", "-c", script, path).CombinedOutput()
	if want := "[True, True, True, False, False]\nTrue\n"; err != nil || string(out) != want {
		t.Errorf("%s%v, want %s", out, err, want)
	}
}
