package daemon

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/sandbox"
)

// socketUnits are those through which rtask is reached, rtask-engine.socket by its gateway.
func socketUnits() []string {
	return []string{
		"rtask.socket", "rtask-engine.socket", "rtask-gateway.socket", "rtask-metrics.socket", "rtask-https.socket", "rtask-remote.socket",
	}
}

// sockets says how rtask's socket units are, and of one that failed why.
func (e *engine) sockets(ctx context.Context) []control.SocketUnit {
	var all []control.SocketUnit
	for _, u := range e.host.Sockets(ctx, socketUnits()...) {
		one := control.SocketUnit{Name: u.Name, Addresses: u.Addresses, State: "off"}
		switch u.Active {
		case "active", "activating", "reloading":
			one.State = "listening"
		case "failed":
			one.State = "failed"
			one.Taken, one.Problem = e.taken(ctx, u)
		}
		all = append(all, one)
	}
	return all
}

// taken returns the address of a socket unit that somebody else has, and says who; without one, what else is wrong.
func (e *engine) taken(ctx context.Context, u sandbox.SocketUnit) (address, problem string) {
	for _, a := range u.Addresses {
		want, err := netip.ParseAddrPort(a)
		if err != nil {
			continue // a path
		}
		for _, l := range tcpListeners("/proc") {
			if !collides(want, l.address) {
				continue
			}
			who := processOf("/proc", l.inode)
			for _, other := range e.host.ActiveSockets(ctx) {
				if other.Name != u.Name && slices.ContainsFunc(other.Addresses, func(s string) bool { b, err := netip.ParseAddrPort(s); return err == nil && b == l.address }) {
					who = other.Name
				}
			}
			if who == "" {
				who = "a process that could not be found"
			}
			return a, fmt.Sprintf("%s is taken by %s", a, who)
		}
	}
	return "", fmt.Sprintf("systemd could not start it (%s), and nobody has its address now", u.Result)
}

// collides reports whether nobody can listen on a where somebody listens on b.
func collides(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	return x == y || x.IsUnspecified() && (x.Is6() || y.Is4()) || y.IsUnspecified() && (y.Is6() || x.Is4())
}

// listener is a TCP socket that listens.
type listener struct {
	address netip.AddrPort
	inode   string
}

// tcpListeners returns those of this network namespace (proc(5), /proc/net/tcp).
func tcpListeners(proc string) []listener {
	const listening = "0A" // TCP_LISTEN
	var all []listener
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(filepath.Join(proc, name))
		if err != nil {
			continue // a kernel without IPv6
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			words := strings.Fields(in.Text())
			if len(words) < 10 || words[3] != listening {
				continue
			}
			if a, ok := procAddress(words[1]); ok {
				all = append(all, listener{address: a, inode: words[9]})
			}
		}
		_ = f.Close() // it was only read
	}
	return all
}

// procAddress reads an address as /proc/net/tcp has it: words of 32 bits in the machine's order, which is little-endian on all that
// rtask runs on, and the port.
func procAddress(text string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(text, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	b, err2 := hex.DecodeString(host)
	if !ok || err != nil || err2 != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(n)), ok
}

// processOf is the process that has a socket open, "nginx (PID 123)"; "" if none is found, which may be for want of rights.
func processOf(proc, inode string) string {
	links, err := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	if err != nil {
		return ""
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has ended
		}
		return fmt.Sprintf("%s (PID %s)", strings.TrimSuffix(string(name), "\n"), filepath.Base(dir))
	}
	return ""
}
