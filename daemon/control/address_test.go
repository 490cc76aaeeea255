package control

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/config"
)

// The URL of a webhook is how others call the gateway, as far as that is known, and what is not known is said.
func TestBaseURL(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		about       string
		public      string
		http, https string // where the units listen
		plaintext   bool
		url, hint   string
	}{
		{about: "as installed", http: "127.0.0.1:8800", url: "http://127.0.0.1:8800", hint: "Only this machine"},
		{about: "moved", http: "127.0.0.1:9000", url: "http://127.0.0.1:9000", hint: "Only this machine"},
		{about: "IPv6", http: "[::1]:8800", url: "http://[::1]:8800", hint: "Only this machine"},
		{about: "public_url", public: "https://ci.example.com", http: "127.0.0.1:8800", url: "https://ci.example.com"},
		{about: "HTTPS too", http: "127.0.0.1:8800", https: "[::]:8443", url: "https://" + name + ":8443", hint: "another name"},
		{about: "HTTPS only", https: "192.0.2.1:8443", url: "https://192.0.2.1:8443"},
		{about: "HTTPS on loopback", http: "192.0.2.1:80", https: "127.0.0.1:8443", plaintext: true, url: "http://192.0.2.1:80"},
		{about: "plain HTTP that is refused", http: "192.0.2.1:80", https: "127.0.0.1:8443", url: "https://127.0.0.1:8443", hint: "Only this machine"},
		{about: "two addresses", http: "127.0.0.1:8800 192.0.2.1:80", plaintext: true, url: "http://192.0.2.1:80"},
		{about: "a Unix socket", http: "/run/rtask-api.sock", url: "", hint: "Unix socket"},
		{about: "a Unix socket and HTTPS", http: "/run/rtask-api.sock", https: "192.0.2.1:8443", url: "https://192.0.2.1:8443"},
		{about: "nothing", url: "http://127.0.0.1:8800", hint: "systemctl start rtask-gateway.socket"},
	} {
		s := &Server{Options: Options{Listening: func(_ context.Context, unit string) ([]string, error) {
			return strings.Fields(map[string]string{"rtask-gateway.socket": c.http, "rtask-https.socket": c.https}[unit]), nil
		}}}
		url, hint := s.baseURL(t.Context(), &config.Config{PublicURL: c.public, AllowPlaintext: c.plaintext})
		if url != c.url || !strings.Contains(hint, c.hint) || c.hint == "" && hint != "" {
			t.Errorf("%s: %q %q, want %q %q", c.about, url, hint, c.url, c.hint)
		}
	}
	s := &Server{Options: Options{APIAddress: "localhost:8800"}} // in the foreground
	if url, hint := s.baseURL(t.Context(), &config.Config{}); url != "http://localhost:8800" || !strings.Contains(hint, "Only this machine") {
		t.Errorf("%q %q", url, hint)
	}
	if url, hint := new(Server).baseURL(t.Context(), &config.Config{}); url != "http://127.0.0.1:8800" || hint != "" {
		t.Errorf("%q %q", url, hint)
	}
}
