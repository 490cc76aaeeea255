package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestHolder finds this process by a port that it listens on.
func TestHolder(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // a machine without IPv6
			continue
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		if strings.HasPrefix(address, "0.0.0.0") {
			at = netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()) // Go listens on both, and says so
		}
		all := tcpListeners("/proc")
		i := slices.IndexFunc(all, func(x listener) bool { return collides(at, x.address) })
		if i < 0 {
			t.Fatalf("%s: nobody listens on %v: %v", address, at, all)
		}
		if who := processOf("/proc", all[i].inode); !strings.HasSuffix(who, fmt.Sprintf(" (PID %d)", os.Getpid())) {
			t.Errorf("%s: %q", address, who)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCollides(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:8800", "127.0.0.1:8800", true}, {"127.0.0.1:8800", "127.0.0.1:8801", false}, {"127.0.0.1:8800", "127.0.0.2:8800", false},
		{"127.0.0.1:8800", "0.0.0.0:8800", true}, {"0.0.0.0:8800", "10.0.0.1:8800", true}, {"127.0.0.1:8800", "[::]:8800", true},
		{"[::1]:8800", "0.0.0.0:8800", false}, {"[::]:8443", "0.0.0.0:8443", true}, {"[::1]:8800", "127.0.0.1:8800", false},
		{"127.0.0.1:8800", "[::ffff:127.0.0.1]:8800", true},
	} {
		if got := collides(netip.MustParseAddrPort(test.a), netip.MustParseAddrPort(test.b)); got != test.want {
			t.Errorf("collides(%s, %s) = %v", test.a, test.b, got)
		}
	}
}
