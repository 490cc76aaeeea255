package ctl

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/ctl/credentials"
	"github.com/rtask/rtask/daemon/auth"
	own "github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/control"
)

// engine is the control socket of an engine that is a service of systemd's, with nothing but an authority to be made.
type engine struct {
	*own.Authority
	dir, socket string
	server      *http.Server
	// url is what others call it by.
	url string
	// begun and tokens, if there are any, are called while an authority is made: before it is on record, and then.
	begun  func()
	tokens func() error
	// late has a rotation answered with an error after it was made.
	late bool
	// mu guards conns, the connections there were.
	mu    sync.Mutex
	conns []net.Conn
	// env is that of root's commands, and store where their sealed keys are.
	env   Env
	store credentials.Store
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	return startEngine(t, t.TempDir())
}

// startEngine starts the engine whose authority and whose sealed keys are in a folder.
func startEngine(t *testing.T, dir string) *engine {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	made, err := own.Open(dir, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	identify, err := auth.NewIdentify(auth.Options{OwnUID: uint32(os.Geteuid())})
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{Authority: made, dir: dir, socket: filepath.Join(t.TempDir(), "s"), env: testEnv(nil), store: credentials.Store{Folder: filepath.Join(dir, "store")}}
	e.env.UID, e.url = 0, "https://build.example.org:8843"
	s := control.New(control.Options{
		Authority: made, Identify: identify, Logger: logger, RemoteURL: func() string { return e.url },
		Snapshot: func() control.Snapshot { return control.Snapshot{} },
		Secrets: control.Secrets{
			Sealed: true, Gateway: func() ([]byte, error) {
				if e.begun != nil {
					e.begun()
				}
				return nil, nil
			},
			Tokens: func([]byte) error {
				if e.tokens == nil {
					return nil
				}
				return e.tokens()
			},
		},
	})
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	e.server = &http.Server{Handler: e.handler(s.Control()), Protocols: both, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.conns = append(e.conns, c)
		return auth.ConnContext("rtask.slice")(ctx, c)
	}}
	done := make(chan struct{})
	go func() { defer close(done); _ = e.server.Serve(l) }()
	t.Cleanup(func() { _ = e.server.Close(); <-done })
	return e
}

// unheard takes an answer that no client gets.
type unheard struct {
	*httptest.ResponseRecorder
	client http.ResponseWriter
}

// Unwrap lets a handler set the deadlines of the connection; see http.ResponseController.
func (u unheard) Unwrap() http.ResponseWriter { return u.client }

// handler is that of the engine; see late.
func (e *engine) handler(real http.Handler) http.Handler {
	problems := connecthttp.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !e.late || !strings.HasSuffix(r.URL.Path, "/Rotate") {
			real.ServeHTTP(w, r)
			return
		}
		real.ServeHTTP(unheard{httptest.NewRecorder(), w}, r)
		_ = problems.Write(w, r, connect.NewError(connect.CodeInternal, "no room")) // the client says if it did not come
	})
}

// cut cuts the connections there are.
func (e *engine) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		_ = c.Close()
	}
}

// rtaskctl runs a command as root, and returns what it printed on standard error.
func (e *engine) rtaskctl(t *testing.T, want int, args ...string) string {
	t.Helper()
	var errs strings.Builder
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errs, env: e.env, credstore: e.store.Folder}
	if status := a.execute(t.Context(), append([]string{"rtaskctl", "--socket", e.socket}, args...)); status != want {
		t.Errorf("%s: exit status %d, want %d: %s", args, status, want, errs.String())
	}
	return errs.String()
}

// holds checks which sealed keys there are, and returns what is in each.
func (e *engine) holds(t *testing.T, want ...string) map[string]string {
	t.Helper()
	var names []string
	all := map[string]string{}
	entries, err := os.ReadDir(e.store.Folder)
	if err != nil {
		t.Error(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
		text, err := os.ReadFile(e.store.Path(entry.Name()))
		if err != nil {
			t.Error(err)
		}
		all[entry.Name()] = string(text)
	}
	if slices.Sort(want); !slices.Equal(names, want) {
		t.Errorf("sealed keys: %q, want %q", names, want)
	}
	return all
}

// plainCreds puts a systemd-creds into PATH that encrypts nothing: the real one makes a key of this machine. That one is tried by the script
// 76-ca of packaging/e2e.
func plainCreds(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "systemd-creds"), []byte("#!/bin/sh\nexec cat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
}

// TestSealedKeys makes an authority, and rotates it and the gateway's key, with calls that the engine refuses and with those that it takes.
// The sealed keys are those that it has.
func TestSealedKeys(t *testing.T) {
	plainCreds(t)
	e := newEngine(t)
	if text := e.rtaskctl(t, exitError, "ca", "init", "--name", "a b"); !strings.Contains(text, "a b") || strings.Contains(text, "hint") {
		t.Errorf("a bad name: %q", text)
	}
	e.holds(t)
	three := []string{sealedAuthority, sealedTokens, sealedGateway}
	e.rtaskctl(t, 0, "ca", "init", "--name", "example.org")
	made := e.holds(t, three...)
	if err := e.Unlock([]byte(made[sealedAuthority])); err != nil {
		t.Errorf("the sealed key is not the authority's: %v", err)
	}

	e.rtaskctl(t, 0, "ca", "rotate", "--gateway")
	now := e.holds(t, three...)
	if now[sealedGateway] == made[sealedGateway] || now[sealedAuthority] != made[sealedAuthority] || now[sealedTokens] != made[sealedTokens] {
		t.Error("not the gateway's key alone is another one")
	}
	e.rtaskctl(t, 0, "ca", "rotate")
	last := e.holds(t, three...)
	if last[sealedAuthority] == now[sealedAuthority] || last[sealedGateway] != now[sealedGateway] || last[sealedTokens] != now[sealedTokens] {
		t.Error("not the authority's key alone is another one")
	}
	if err := e.Unlock([]byte(last[sealedAuthority])); err != nil {
		t.Errorf("the sealed key is not the authority's: %v", err)
	}

	// Without its key the engine refuses both.
	if err := errors.Join(e.server.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	e = startEngine(t, e.dir)
	for _, args := range [][]string{{"ca", "rotate"}, {"ca", "rotate", "--gateway"}} {
		want := "rtaskctl: the authority's key is not there\nhint: put " + e.store.Path(sealedAuthority) + " back and restart the engine, or run rtaskctl ca rotate --distrust-old: everybody logs in again\n"
		if text := e.rtaskctl(t, exitError, args...); text != want {
			t.Errorf("%s: %q, want %q", args, text, want)
		}
		e.holds(t, three...)
	}
	e.rtaskctl(t, 0, "ca", "rotate", "--distrust-old")
	e.holds(t, three...)
	e.url = "" // it is not the key that is missing
	if text := e.rtaskctl(t, exitError, "ca", "issue", "admin1"); !strings.HasSuffix(text, "\nhint: rtaskctl doctor shows what is missing\n") {
		t.Errorf("%q", text)
	}
}

// TestHalfMade checks that the sealed keys stay where an authority was made although the call failed, and where no answer came and the
// authority is made later.
func TestHalfMade(t *testing.T) {
	plainCreds(t)
	three := []string{sealedAuthority, sealedTokens, sealedGateway}
	const want = "hint: there may be an authority now, so its sealed keys stay: "
	fails := newEngine(t)
	fails.tokens = func() error { return errors.New("no room") }
	slow, asked, made := newEngine(t), make(chan struct{}), make(chan struct{})
	slow.begun = func() { slow.cut(); <-asked }
	slow.tokens = func() error { close(made); return nil }
	for _, e := range []*engine{fails, slow} {
		if text := e.rtaskctl(t, exitError, "ca", "init", "--name", "example.org"); !strings.Contains(text, want) {
			t.Errorf("%q, want %q", text, want)
		}
		if e == slow {
			close(asked)
			<-made
		}
		key := e.holds(t, three...)[sealedAuthority]
		if err := e.Unlock([]byte(key)); err != nil {
			t.Errorf("the sealed key is not the authority's: %v", err)
		}
	}
	// As the hint goes on. A restart has the engine read the other keys.
	fails.rtaskctl(t, 0, "ca", "rotate", "--gateway")
	fails.holds(t, three...)
}

// TestHalfRotated checks that the next key stays where the engine has it although it refused the call, and that the hint says how to go on.
func TestHalfRotated(t *testing.T) {
	plainCreds(t)
	e := newEngine(t)
	e.rtaskctl(t, 0, "ca", "init", "--name", "example.org")
	e.late = true
	next, now := e.store.Path(sealedNext), e.store.Path(sealedAuthority)
	want := "rtaskctl: no room\nhint: mv " + next + " " + now + " if rtaskctl ca list shows the new authority, else remove it\n"
	if text := e.rtaskctl(t, exitError, "ca", "rotate"); text != want {
		t.Errorf("%q, want %q", text, want)
	}
	key := e.holds(t, sealedAuthority, sealedNext, sealedTokens, sealedGateway)[sealedNext]
	if err := e.Unlock([]byte(key)); err != nil {
		t.Errorf("the next key is not the authority's: %v", err)
	}
}

// TestOneAtATime checks that of two commands that seal keys, the second one changes nothing.
func TestOneAtATime(t *testing.T) {
	plainCreds(t)
	e := newEngine(t)
	const busy = "rtaskctl: another rtaskctl ca init or rtaskctl ca rotate is running\n"
	unlock, err := e.store.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if text := e.rtaskctl(t, exitError, "ca", "init", "--name", "example.org"); text != busy {
		t.Errorf("%q, want %q", text, busy)
	}
	e.holds(t)
	unlock()
	e.tokens = func() error {
		if _, err := e.store.Lock(); !errors.Is(err, credentials.ErrBusy) {
			t.Errorf("while the engine makes the authority: %v", err)
		}
		return nil
	}
	e.rtaskctl(t, 0, "ca", "init", "--name", "example.org")
	three := []string{sealedAuthority, sealedTokens, sealedGateway}
	made := e.holds(t, three...)
	if unlock, err = e.store.Lock(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ca", "rotate"}, {"ca", "rotate", "--gateway"}} {
		if text := e.rtaskctl(t, exitError, args...); text != busy {
			t.Errorf("%s: %q, want %q", args, text, busy)
		}
	}
	if now := e.holds(t, three...); !maps.Equal(now, made) {
		t.Error("the keys are others now")
	}
	unlock()
	e.rtaskctl(t, 0, "ca", "rotate")
}

// TestSealHints checks what is said where keys cannot be sealed, by the command that somebody called.
func TestSealHints(t *testing.T) {
	plainCreds(t)
	e := newEngine(t)
	e.rtaskctl(t, 0, "ca", "init", "--name", "example.org")
	made := []string{sealedAuthority, sealedTokens, sealedGateway}
	next, now, gateway := e.store.Path(sealedNext), e.store.Path(sealedAuthority), e.store.Path(sealedGatewayNext)
	for _, file := range []string{next, gateway} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		uid  int
		args []string
		want string
	}{
		{1000, []string{"ca", "rotate"}, "only root can seal keys for systemd\nhint: sudo rtaskctl ca rotate\n"},
		{1000, []string{"ca", "rotate", "--gateway"}, "only root can seal keys for systemd\nhint: sudo rtaskctl ca rotate --gateway\n"},
		{0, []string{"ca", "rotate"}, "cannot make the key " + next + ": there is one already\nhint: an earlier rotation ended half-way: mv " + next + " " + now + " if rtaskctl ca list shows the new authority, else remove it\n"},
		{0, []string{"ca", "rotate", "--gateway"}, "cannot make the key " + gateway + ": there is one already\nhint: an earlier rotation ended half-way: rm " + gateway + "\n"},
	} {
		e.env.UID = test.uid
		if text := e.rtaskctl(t, exitError, test.args...); text != "rtaskctl: "+test.want {
			t.Errorf("%s: %q, want %q", test.args, text, test.want)
		}
		e.holds(t, append(made, sealedNext, sealedGatewayNext)...)
	}
	// The authority of these keys is gone, and so is what its rotation left.
	gone := newEngine(t)
	gone.store = e.store
	text := gone.rtaskctl(t, exitError, "ca", "init", "--name", "example.org")
	if want := ": there is one already\nhint: if it is of an authority that is gone, move it away\n"; !strings.HasSuffix(text, want) {
		t.Errorf("%q, want %q", text, want)
	}
	want := "rtaskctl: there is no authority\nhint: rtaskctl ca init makes an authority; rtaskctl doctor shows what is missing\n"
	if text := gone.rtaskctl(t, exitError, "ca", "rotate"); text != want {
		t.Errorf("%q, want %q", text, want)
	}
	gone.holds(t, append(made, sealedNext, sealedGatewayNext)...)
}
