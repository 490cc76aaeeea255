package gateway

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// However many addresses refusals come from, the engine is told of each one in few calls.
func TestRefusalsAreBounded(t *testing.T) {
	e := newEnginePeer(t)
	engine := client.Dial(filepath.Join(e.dir, "gateway.sock"))
	defer engine.Close()
	r := newRefusals(engine.Gateway, slog.New(slog.DiscardHandler))
	const n = 5000
	r.mu.Lock()
	r.telling = true // not yet
	r.mu.Unlock()
	for i := range n {
		from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(fmt.Sprintf("192.0.%d.%d:1", i/250, i%250)))
		r.add(from, &refusal{kind: rtaskv1.KindCertificateMissing, text: "there is none"})
		r.add(from, &refusal{kind: rtaskv1.KindTLS, text: "old"})
	}
	r.mu.Lock()
	if n := len(r.pending); n > maxRefusals+2 {
		t.Errorf("%d are remembered", n)
	}
	r.tells.Go(r.tell)
	r.mu.Unlock()
	r.close()
	if got := e.refusals(); got["certificate-missing"] != n || got["tls"] != n {
		t.Errorf("%v", got)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.refused) > maxRefusals+2 {
		t.Errorf("%d calls", len(e.refused))
	}
	// After its end nothing is told.
	r.add(&net.TCPAddr{}, &refusal{kind: rtaskv1.KindTLS})
	if len(r.pending) != 0 {
		t.Error("there is something left")
	}
}
