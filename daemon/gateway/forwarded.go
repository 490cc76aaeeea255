package gateway

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// unix is the address of a client that connects by a Unix socket, and in trusted_proxies any of them.
const unix = "unix"

// remoteAddr is the client's address: that of the connection, or, where a trusted proxy made it, the last one in
// X-Forwarded-For that is no trusted proxy's. What stands before that one is anybody's word.
func (a *api) remoteAddr(r *http.Request) string {
	var from netip.Addr // the zero Addr is a Unix socket's
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = peer.Addr().Unmap()
	}
	if forwarded := r.Header.Values("X-Forwarded-For"); len(forwarded) > 0 {
		if state, err := a.watch.now(r.Context()); err == nil {
			from = forwardedFor(from, forwarded, proxiesOf(state.TrustedProxies))
		}
	}
	if !from.IsValid() {
		return unix
	}
	return from.String()
}

// proxies are those whose X-Forwarded-For is believed.
type proxies struct {
	networks []netip.Prefix
	unix     bool // whoever connects by a Unix socket
}

func (p proxies) has(from netip.Addr) bool {
	if !from.IsValid() {
		return p.unix
	}
	return slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(from) })
}

// proxiesOf reads what the engine has checked.
func proxiesOf(texts []string) proxies {
	var all proxies
	for _, text := range texts {
		if text == unix {
			all.unix = true
		} else if p, err := netip.ParsePrefix(text); err == nil {
			all.networks = append(all.networks, p)
		}
	}
	return all
}

// forwardedFor is the client of a connection from an address, with what its X-Forwarded-For headers say. The zero Addr is that
// of a Unix socket.
func forwardedFor(from netip.Addr, headers []string, trusted proxies) netip.Addr {
	var hops []string
	for _, h := range headers {
		hops = append(hops, strings.Split(h, ",")...)
	}
	for _, hop := range slices.Backward(hops) {
		if !trusted.has(from) {
			return from
		}
		hop = strings.TrimSpace(hop)
		next, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil {
			with, portErr := netip.ParseAddrPort(hop) // some add the port
			if portErr != nil {
				return from
			}
			next = with.Addr()
		}
		from = next.Unmap().WithZone("") // which says something on its own machine only, and may be any bytes
	}
	return from
}
