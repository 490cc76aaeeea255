package control

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/rtask/rtask/daemon/config"
)

const (
	// apiSocket and httpsSocket are the units of the gateway's sockets.
	apiSocket   = "rtask-gateway.socket"
	httpsSocket = "rtask-https.socket"
	// defaultURL is where the first of them listens unless somebody changed it.
	defaultURL = "http://127.0.0.1:8800"
)

// baseURL is how the gateway is called, and what an administrator should know about that: a sentence, or "". It is the URL that
// most others can use: HTTPS before HTTP, and what other machines can reach before loopback.
func (s *Server) baseURL(ctx context.Context, c *config.Config) (url, hint string) {
	if c.PublicURL != "" {
		return c.PublicURL, ""
	}
	https, http := s.listening(ctx, s.HTTPSAddress, httpsSocket), s.listening(ctx, s.APIAddress, apiSocket)
	unix := false
	best := reach{}
	for _, at := range [...]struct {
		scheme    string
		addresses []string
		exposed   bool
	}{{"https://", https, true}, {"http://", http, c.AllowPlaintext}} {
		for _, address := range at.addresses {
			r, ok := reachOf(address)
			unix = unix || !ok
			if !ok || !r.loopback && !at.exposed { // which the gateway does not serve
				continue
			}
			r.url = at.scheme + r.url
			if best.url == "" || best.loopback && !r.loopback {
				best = r
			}
		}
	}
	switch {
	case best.url == "" && unix:
		return "", "The HTTP API listens on a Unix socket: set public_url in rtask.hcl to how the web server in front is called."
	case best.url == "" && s.Listening != nil:
		return defaultURL, "Nothing serves the HTTP API now: systemctl start " + apiSocket + "."
	case best.url == "":
		return defaultURL, ""
	case best.loopback:
		return best.url, "Only this machine can call this: set public_url in rtask.hcl to how others call it."
	case best.guessed:
		return best.url, "If others call this machine by another name, set public_url in rtask.hcl."
	default:
		return best.url, ""
	}
}

// listening returns where a socket of the gateway's listens, as far as that is known.
func (s *Server) listening(ctx context.Context, given, unit string) []string {
	if given != "" {
		return []string{given}
	}
	if s.Listening == nil {
		return nil
	}
	addresses, err := s.Listening(ctx, unit)
	if err != nil {
		s.Logger.Warn("cannot ask where the gateway listens", "unit", unit, "error", err)
	}
	return addresses
}

// reach is an address as others use it.
type reach struct {
	url      string // without the scheme
	loopback bool
	// guessed says that the name in url is this machine's, since it listens on all of its addresses.
	guessed bool
}

// reachOf returns false for what is no address of a network: a Unix socket.
func reachOf(address string) (reach, bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return reach{}, false
	}
	r := reach{url: address, loopback: host == "localhost"}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && host != "":
	case err != nil || ip.IsUnspecified():
		if name, err := os.Hostname(); err == nil {
			r.url, r.guessed = net.JoinHostPort(name, port), true
		}
	default:
		r.loopback = ip.IsLoopback()
	}
	return r, true
}
