package codec

import (
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestCertificates(t *testing.T) {
	for name, c := range map[string]Certificates{
		"alone":             {Leaf: []byte{0x30, 0, 0xff}},
		"with a chain":      {Leaf: []byte("leaf"), Chain: [][]byte{{1}, {2, 2}, []byte("333"), {4}}},
		"the longest":       {Leaf: make([]byte, MaxCertificates)},
		"the longest chain": {Leaf: make([]byte, MaxCertificates/2), Chain: [][]byte{make([]byte, MaxCertificates/2)}},
	} {
		h := http.Header{"Client-Cert": {":QQ==:", ":QQ==:"}, "Client-Cert-Chain": {":QQ==:"}} // of somebody else
		c.Put(h)
		if got, err := CertificatesIn(h); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// RFC 9440, section 2.2: base64 with padding between colons, and a list with commas.
	h := http.Header{}
	Certificates{Leaf: []byte{1}, Chain: [][]byte{{2}, {3}}}.Put(h)
	if want := (http.Header{"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {":Ag==:, :Aw==:"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("%v", h)
	}
}

// What is not written as it should be, or too long, is nobody's certificate.
func TestBadCertificates(t *testing.T) {
	long := strings.Repeat("AAAA", MaxCertificates/3+2)
	for name, h := range map[string]http.Header{
		"none":                {},
		"two":                 {"Client-Cert": {":AQ==:", ":AQ==:"}},
		"a list":              {"Client-Cert": {":AQ==:, :AQ==:"}},
		"empty":               {"Client-Cert": {""}},
		"no bytes":            {"Client-Cert": {"::"}},
		"one colon":           {"Client-Cert": {":"}},
		"no colons":           {"Client-Cert": {"AQ=="}},
		"no padding":          {"Client-Cert": {":AQ:"}},
		"another alphabet":    {"Client-Cert": {":_-==:"}},
		"bits behind the end": {"Client-Cert": {":AR==:"}},
		"a line":              {"Client-Cert": {":AQ\n==:"}},
		"parameters":          {"Client-Cert": {":AQ==:;a=1"}},
		"too long":            {"Client-Cert": {":" + long + ":"}},
		"two chains":          {"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {":AQ==:", ":AQ==:"}},
		"an empty chain":      {"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {""}},
		"a chain with a gap":  {"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {":AQ==:, , :AQ==:"}},
		"a chain of five":     {"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {strings.Repeat(":AQ==:,", 4) + ":AQ==:"}},
		"a long chain":        {"Client-Cert": {":AQ==:"}, "Client-Cert-Chain": {":" + long + ":"}},
		"long, all together":  {"Client-Cert": {":" + long[:len(long)/2] + "AAAA:"}, "Client-Cert-Chain": {":" + long[:len(long)/2] + ":"}},
	} {
		if c, err := CertificatesIn(h); err == nil {
			t.Errorf("%s: %v", name, c)
		}
	}
}

// FuzzCertificates: whatever the headers are, what is read of them is bounded, and is what Put writes.
func FuzzCertificates(f *testing.F) {
	f.Add(":AQ==:", ":Ag==:, :Aw==:", true)
	f.Add("", "", false)
	f.Add("::", ":,:", true)
	f.Add(":AQ==:", ":AQ==:,:AQ==:,:AQ==:,:AQ==:,:AQ==:", true)
	f.Fuzz(func(t *testing.T, leaf, chain string, withChain bool) {
		h := http.Header{"Client-Cert": {leaf}}
		if withChain {
			h["Client-Cert-Chain"] = []string{chain}
		}
		c, err := CertificatesIn(h)
		if err != nil {
			return
		}
		n := len(c.Leaf)
		for _, der := range c.Chain {
			n += len(der)
		}
		if n > MaxCertificates || len(c.Chain) > MaxChain || len(c.Leaf) == 0 {
			t.Errorf("%d bytes in %d certificates", n, 1+len(c.Chain))
		}
		again := http.Header{}
		c.Put(again)
		back, err := CertificatesIn(again)
		if err != nil || !bytes.Equal(back.Leaf, c.Leaf) || len(back.Chain) != len(c.Chain) {
			t.Errorf("%v, %v", back, err)
		}
	})
}
