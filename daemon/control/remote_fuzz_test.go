package control

import (
	"net/http"
	"testing"

	"github.com/rtask/rtask/daemon/api/codec"
)

// FuzzClientCertificates: whatever comes as a client's certificates, on the wire or in DER, is refused or parsed, and remembered only if it
// was parsed.
func FuzzClientCertificates(f *testing.F) {
	r := newRemote(f)
	leaf, root := r.enrol("op").leaf.Raw, r.authority.Certificates()[0].Raw
	f.Add(leaf, root, "", false)
	f.Add(leaf[:len(leaf)-1], root, "", false)
	f.Add([]byte{0x30, 0x82}, []byte(nil), "", false)
	f.Add([]byte(nil), []byte(nil), ":QQ==:", true)
	f.Fuzz(func(t *testing.T, leaf, chain []byte, text string, raw bool) {
		h := http.Header{}
		if raw {
			h.Set("Client-Cert", text)
			h.Set("Client-Cert-Chain", text)
		} else {
			shown := codec.Certificates{Leaf: leaf}
			if len(chain) > 0 {
				shown.Chain = [][]byte{chain}
			}
			shown.Put(h)
		}
		var p parsed
		first, _, err := p.certificates(h)
		if (err == nil) != (len(p.of) == 1) || err == nil && len(first.Raw) == 0 {
			t.Fatalf("%v, and %d are remembered", err, len(p.of))
		}
		if err != nil {
			return
		}
		if again, _, err := p.certificates(h); err != nil || again != first {
			t.Errorf("%v", err)
		}
		if _, err := r.authority.Verify(first, nil); err == nil && string(first.Raw) != string(leaf) {
			t.Error("a certificate that nobody issued is good")
		}
	})
}
