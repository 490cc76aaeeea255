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
	l := perUser(inner, 3).(*limited)
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
	for range 3 {
		if !l.take(4711) {
			t.Error("one too few")
		}
	}
	if l.take(4711) || !l.take(4712) {
		t.Error("not by user")
	}
	l.giveBack(4711)
	if !l.take(4711) || l.take(4711) {
		t.Error("given back, but not one")
	}
	for range 3 {
		l.giveBack(4711)
	}
	l.giveBack(4712)
	l.mu.Lock()
	if len(l.open) != 0 {
		t.Errorf("%v", l.open)
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
	out, err := exec.Command("python3", "-c", script, path).CombinedOutput()
	if want := "[True, True, True, False, False]\nTrue\n"; err != nil || string(out) != want {
		t.Errorf("%s%v, want %s", out, err, want)
	}
}
