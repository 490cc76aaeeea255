package gateway

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Only what a trusted proxy adds is believed.
func TestForwardedFor(t *testing.T) {
	trusted := proxiesOf([]string{"127.0.0.0/8", "10.0.0.0/8", "unix", "2001:db8:1::/48"})
	for _, c := range []struct {
		from    string
		headers []string
		want    string
	}{
		{"192.0.2.1", []string{"198.51.100.1"}, "192.0.2.1"}, // no proxy of ours
		{"127.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"127.0.0.1", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"}, // the client's own word comes first
		{"127.0.0.1", []string{"1.2.3.4", "198.51.100.1,10.1.2.3"}, "198.51.100.1"},
		{"127.0.0.1", []string{"10.9.9.9, 10.1.2.3"}, "10.9.9.9"},
		{"2001:db8:1::5", []string{"[2001:db8:2::7]"}, "2001:db8:2::7"},
		{"127.0.0.1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"127.0.0.1", []string{"[2001:db8:2::7]:4711"}, "2001:db8:2::7"},
		{"127.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"127.0.0.1", []string{"unknown"}, "127.0.0.1"},
		{"127.0.0.1", []string{"198.51.100.1, _hidden, 10.1.2.3"}, "10.1.2.3"},
		{"127.0.0.1", []string{""}, "127.0.0.1"},
		{"127.0.0.1", []string{"2001:db8:2::7%eth0"}, "2001:db8:2::7"}, // a zone is the other machine's own word
		{"127.0.0.1", []string{"2001:db8:2::7%\xff" + strings.Repeat("x", 10_000)}, "2001:db8:2::7"},
		{"127.0.0.1", []string{"[2001:db8:2::7%\xff]:4711"}, "2001:db8:2::7"},
		{"", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"}, // by a Unix socket
		{"", []string{"198.51.100.1, 10.1.2.3"}, "198.51.100.1"},
		{"", []string{"unix"}, ""},
		{"127.0.0.1", []string{"198.51.100.1, unix"}, "127.0.0.1"}, // nobody's word makes a Unix socket of an address
	} {
		var from, want netip.Addr
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		if c.want != "" {
			want = netip.MustParseAddr(c.want)
		}
		if got := forwardedFor(from, c.headers, trusted); got != want {
			t.Errorf("%s, %q: %s, want %s", c.from, c.headers, got, c.want)
		}
		if got := forwardedFor(from, c.headers, proxies{}); got != from {
			t.Errorf("%s, %q, nobody trusted: %s", c.from, c.headers, got)
		}
	}
}

// An address that no proxy should send costs no more time than another.
func TestForwardedZone(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.dir, "rtask.hcl"), []byte(`trusted_proxies = ["127.0.0.1"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	if _, err := people.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	for _, zone := range []string{"", "%eth0", "%\xff", "%" + strings.Repeat("\xff", 8000)} {
		forwarded := "X-Forwarded-For: fe80::1" + zone + "\r\n"
		got := f.raw("POST /tasks/hello HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.key + "\r\n" + forwarded + "Content-Length: 2\r\n\r\nx\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%.20q: %.100q", zone, got)
		}
		if got := f.raw("POST /wh/none HTTP/1.1\r\nHost: x\r\n" + forwarded + "Content-Length: 1\r\n\r\nx"); !strings.HasPrefix(got, "HTTP/1.1 404") {
			t.Errorf("%.20q: %.100q", zone, got)
		}
	}
	// The requests are answered by the engine, which is not waited for, as it is when it goes away.
	if !strings.Contains(f.scrape(), `task_rejection_total{reason="not-found",task=""} 4`) {
		t.Error("the engine does not know of all requests")
	}
}

// Whatever a header says, a client that comes without a proxy is itself.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.2.3.4, [::1]:5", "x")
	trusted := proxiesOf([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, a, b string) {
		stranger := netip.MustParseAddr("192.0.2.1")
		if got := forwardedFor(stranger, []string{a, b}, trusted); got != stranger {
			t.Errorf("%v", got)
		}
		if got := forwardedFor(netip.MustParseAddr("10.0.0.1"), []string{a, b}, trusted); !got.IsValid() || got.Zone() != "" {
			t.Errorf("%q %q: nobody", a, b)
		}
	})
}
