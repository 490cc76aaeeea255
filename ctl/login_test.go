package ctl

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
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
