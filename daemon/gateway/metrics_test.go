package gateway

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A page in a browser that has its own name resolve to this machine reads no metrics. Who asks for this machine does.
func TestMetricsHost(t *testing.T) {
	f := newFixture(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f.serve(Options{Logger: slog.New(slog.DiscardHandler)}, map[string][]net.Listener{"metrics": {unix}})
	get := func(network, address, host string) string {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(c)
		return b.String()
	}
	for host, good := range map[string]bool{
		"localhost": true, "LOCALHOST:9090": true, "127.0.0.1:9090": true, "[::1]:9090": true, "192.0.2.7": true, "localhost.": true, name: true,
		strings.ToUpper(name) + ":9090": true, "attacker.example": false, "attacker.example:9090": false, "localhost.attacker.example": false,
		"127.0.0.1.attacker.example": false, name + ".attacker.example": false,
	} {
		got := get("tcp", f.metrics, host)
		if strings.HasPrefix(got, "HTTP/1.1 200") != good || strings.Contains(got, "rtask_engine_up") != good || !good && !strings.HasPrefix(got, "HTTP/1.1 403") {
			t.Errorf("%s: %.100s", host, got)
		}
	}
	if got := get("unix", unix.Addr().String(), "attacker.example"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("on a Unix socket: %.100s", got)
	}
}

// With a token, nobody reads the metrics without it, and if it cannot be read, nobody at all.
func TestMetricsToken(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		content string
		good    []string
	}{{"s3cret\n", []string{"Bearer s3cret", "bearer  s3cret"}}, {"\n", nil}} {
		o := Options{MetricsAddress: "127.0.0.1:0", CredentialsDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
		if err := os.WriteFile(filepath.Join(o.CredentialsDir, credentialMetrics), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		at := f.serve(o, nil)["metrics"]
		try := func(authorization string) int {
			r, err := http.NewRequest("GET", "http://"+at+"/metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			return f.send(r).status
		}
		for _, bad := range []string{"", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "s3cret", "Bearer " + f.key} {
			if got := try(bad); got != 401 {
				t.Errorf("%q, %q: %d", c.content, bad, got)
			}
		}
		for _, good := range c.good {
			if got := try(good); got != 200 {
				t.Errorf("%q: %d", good, got)
			}
		}
	}
}
