package ctl

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/credentials"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// sealed is the authority of an engine that is a service of systemd's. It refuses everything else.
type sealed struct {
	rtaskv1connect.UnimplementedAuthorityServiceHandler
}

func (sealed) Show(context.Context, *rtaskv1.ShowRequest) (*rtaskv1.ShowResponse, error) {
	return &rtaskv1.ShowResponse{Exists: true, Sealed: true}, nil
}

// serveSealed returns the control socket of a sealed.
func serveSealed(t *testing.T) string {
	t.Helper()
	server, mux := connect.NewServer(), http.NewServeMux()
	rtaskv1connect.RegisterAuthorityServiceHandler(server, sealed{})
	connecthttp.Mount(mux, server)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: mux, Protocols: both}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return socket
}

// TestUndo checks that sealed keys are removed where the engine has refused them, and not where only its reply is missing: its authority may
// have them.
func TestUndo(t *testing.T) {
	engine := client.Dial(serveSealed(t))
	t.Cleanup(engine.Close)
	_, refused := engine.Authority.Init(t.Context(), &rtaskv1.InitRequest{})
	lost := connect.NewError(connect.CodeUnavailable, "the connection broke")
	for _, test := range []struct {
		err  error
		left bool
	}{{refused, false}, {&hintError{refused, "a hint"}, false}, {lost, true}, {errors.New("no reply"), true}} {
		store := credentials.Store{Folder: t.TempDir()}
		for _, file := range []string{"a", "b"} {
			if err := os.WriteFile(store.Path(file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := undo(store, test.err, "a", "b"); !errors.Is(err, test.err) {
			t.Errorf("%v: %v", test.err, err)
		}
		if a, b := exists(store.Path("a")), exists(store.Path("b")); a != test.left || b != test.left {
			t.Errorf("after %v: %v, %v are left", test.err, a, b)
		}
	}
}

// TestSealHints checks what is said where keys cannot be sealed, by the command that somebody called.
func TestSealHints(t *testing.T) {
	var errs strings.Builder
	if status := Run(t.Context(), []string{"rtaskctl", "--socket", serveSealed(t), "ca", "rotate"}, nil, &errs, &errs, testEnv(nil)); status != exitError {
		t.Errorf("exit status %d", status)
	}
	if want := "rtaskctl: only root can seal keys for systemd\nhint: sudo rtaskctl ca rotate\n"; errs.String() != want {
		t.Errorf("%q, want %q", errs.String(), want)
	}
	a := &app{env: Env{UID: 0}}
	store := credentials.Store{Folder: t.TempDir()}
	next, now := store.Path(sealedNext), store.Path(sealedAuthority)
	for _, file := range []string{next, now} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		sealedNext:      "an earlier rotation ended half-way: mv " + next + " " + now + " if rtaskctl ca list shows the new authority, else remove it",
		sealedAuthority: "if it is of an authority that is gone, move it away",
	} {
		err := a.seal(t.Context(), "rtaskctl ca", store, map[string]sealing{file: {"ca.key", nil}})
		if !errors.Is(err, credentials.ErrExists) || a.hint(err) != want {
			t.Errorf("%v, hint %q; want %q", err, a.hint(err), want)
		}
	}
}
