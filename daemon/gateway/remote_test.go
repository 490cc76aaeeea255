package gateway

import (
	"net/netip"
	"testing"
)

// Only what a trusted proxy adds is believed.
func TestForwardedFor(t *testing.T) {
	trusted := prefixes([]string{"127.0.0.0/8", "10.0.0.0/8", "2001:db8:1::/48"})
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
	} {
		if got := forwardedFor(netip.MustParseAddr(c.from), c.headers, trusted).String(); got != c.want {
			t.Errorf("%s, %q: %s, want %s", c.from, c.headers, got, c.want)
		}
		if got := forwardedFor(netip.MustParseAddr(c.from), c.headers, nil).String(); got != c.from {
			t.Errorf("%s, %q, nobody trusted: %s", c.from, c.headers, got)
		}
	}
}

// Whatever a header says, a client that comes without a proxy is itself.
func FuzzForwardedFor(f *testing.F) {
	f.Add("1.2.3.4, [::1]:5", "x")
	trusted := prefixes([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, a, b string) {
		stranger := netip.MustParseAddr("192.0.2.1")
		if got := forwardedFor(stranger, []string{a, b}, trusted); got != stranger {
			t.Errorf("%v", got)
		}
		if got := forwardedFor(netip.MustParseAddr("10.0.0.1"), []string{a, b}, trusted); !got.IsValid() {
			t.Errorf("%q %q: nobody", a, b)
		}
	})
}
