package gateway

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// remoteAddr is the client's address: that of the connection, or, where a trusted proxy made it, the last one in
// X-Forwarded-For that is no trusted proxy's. What stands before that one is anybody's word.
func (a *api) remoteAddr(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	from := peer.Addr().Unmap()
	forwarded := r.Header.Values("X-Forwarded-For")
	if len(forwarded) == 0 {
		return from.String()
	}
	framing, _, err := a.limits(r.Context(), framingAge)
	if err != nil {
		return from.String()
	}
	return forwardedFor(from, forwarded, prefixes(framing.TrustedProxies)).String()
}

// prefixes are networks that the engine has checked.
func prefixes(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// forwardedFor is the client of a connection from an address, with what its X-Forwarded-For headers say.
func forwardedFor(from netip.Addr, headers []string, trusted []netip.Prefix) netip.Addr {
	var hops []string
	for _, h := range headers {
		hops = append(hops, strings.Split(h, ",")...)
	}
	for _, hop := range slices.Backward(hops) {
		if !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(from) }) {
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
		from = next.Unmap()
	}
	return from
}
