// Package origin says which addresses count as one client, for limits and budgets by address. It is numbers in, numbers out; the
// engine and the gateway use it.
package origin

import "net/netip"

// Client is what counts as one client: an IPv4 address, or of IPv6 the /64 that one customer has. It is the zero Prefix for what
// is no address.
func Client(a netip.Addr) netip.Prefix { return prefix(a, 32, 64) }

// Network is the wider network of an address, of which one customer may have many: of IPv4 the /24, of IPv6 the /48.
func Network(a netip.Addr) netip.Prefix { return prefix(a, 24, 48) }

func prefix(a netip.Addr, v4, v6 int) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := v6
	if a.Is4() {
		bits = v4
	}
	p, _ := a.Prefix(bits) // the zero Prefix of what is no address
	return p
}
