package ctl

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/daemon/auth/join"
)

// TestPinOfKnownServer checks that a login with a join token believes the authority of that token alone, also where there is a context of the
// server whose authority is one of the system's.
func TestPinOfKnownServer(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ca" {
			t.Errorf("it was asked for %s", r.URL.Path)
		}
		own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := json.NewEncoder(w).Encode(client.Authority{Certificates: []string{string(own)}}); err != nil {
			t.Error(err)
		}
	}))
	// One request of a connection; daemon/gateway has the real one.
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"rtask-enroll/1"}}
	s.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"rtask-enroll/1": func(_ *http.Server, c *tls.Conn, h http.Handler) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			_ = w.Result().Write(c) // the client says if it did not come
		},
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)

	config := t.TempDir()
	folder := contexts.Folder{Path: filepath.Join(config, "rtask")}
	known := contexts.Context{Name: "build", URL: s.URL}
	if err := folder.Save(t.Context(), known, contexts.Content{}, func(string) error { return nil }, true); err != nil {
		t.Fatal(err)
	}
	token := join.Token{Address: strings.TrimPrefix(s.URL, "https://"), Pin: [join.PinLen]byte{1}}
	var out strings.Builder
	args := []string{"rtaskctl", "login", "--key", "plain", "--join", token.Text()}
	status := Run(t.Context(), args, nil, &out, &out, testEnv(map[string]string{"XDG_CONFIG_HOME": config}))
	if want := "rtaskctl: this join token is for another authority than that of 127.0.0.1, "; status != exitError || !strings.HasPrefix(out.String(), want) {
		t.Errorf("exit status %d, %q; want %q", status, out.String(), want)
	}
}

// TestNoPlaceForContext checks that a login which cannot be saved, because its folder is somebody's own, says so before it uses up the join
// token.
func TestNoPlaceForContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			_ = c.Close()
		}
	}()
	config := t.TempDir()
	dir := filepath.Join(config, "rtask", "build")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	token := join.Token{Address: l.Addr().String(), Pin: [join.PinLen]byte{1}}
	var out strings.Builder
	args := []string{"rtaskctl", "login", "--key", "plain", "--name", "build", "--join", token.Text()}
	status := Run(t.Context(), args, nil, &out, &out, testEnv(map[string]string{"XDG_CONFIG_HOME": config}))
	if want := "rtaskctl: " + dir + " exists and belongs to no context: move it away\n"; status != exitError || out.String() != want {
		t.Errorf("exit status %d, %q; want %q", status, out.String(), want)
	}
	_ = l.Close()
	<-done
	if n := asked.Load(); n != 0 {
		t.Errorf("the server was called %d times", n)
	}
}
