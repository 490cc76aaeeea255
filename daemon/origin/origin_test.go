package origin

import (
	"net/netip"
	"testing"
)

func TestPrefixes(t *testing.T) {
	for in, want := range map[string][2]string{
		"192.0.2.7":           {"192.0.2.7/32", "192.0.2.0/24"},
		"::ffff:192.0.2.7":    {"192.0.2.7/32", "192.0.2.0/24"},
		"2001:db8:1:2:3::4":   {"2001:db8:1:2::/64", "2001:db8:1::/48"},
		"fe80::1%eth0":        {"fe80::/64", "fe80::/48"},
		"fe80::1%other%thing": {"fe80::/64", "fe80::/48"},
	} {
		a := netip.MustParseAddr(in)
		if got := [2]string{Client(a).String(), Network(a).String()}; got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
	if Client(netip.Addr{}).IsValid() || Network(netip.Addr{}).IsValid() {
		t.Error("no address counts as a client")
	}
}
