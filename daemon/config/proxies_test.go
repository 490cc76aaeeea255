package config

import (
	"strings"
	"testing"
)

func TestTrustedProxies(t *testing.T) {
	for text, want := range map[string]string{
		`["127.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32"]`: "127.0.0.1/32 10.0.0.0/8 ::1/128 2001:db8::/32",
		`[]`:                     "",
		`["unix"]`:               "unix",
		`["unix", "10.0.0.0/8"]`: "10.0.0.0/8 unix",
		`["Unix"]`:               `!is not an address, a network or "unix"`,
		`["10.1.0.0/8"]`:         `!trusted_proxies[0] has bits beyond its prefix`,
		`["localhost"]`:          `!trusted_proxies[0] is not an address, a network or "unix": "localhost"`,
		`["fe80::1%eth0"]`:       `!is not an address`,
		`["10.0.0.0/33"]`:        `!is not an address`,
		`"10.0.0.0/8"`:           `!trusted_proxies must be a list`,
	} {
		folder(t, map[string]string{"rtask.hcl": "trusted_proxies = " + text + "\n"})
		cfg, diags := Load(here())
		if problem, bad := strings.CutPrefix(want, "!"); bad {
			if !diags.HasErrors() || !strings.Contains(diags.Error(), problem) {
				t.Errorf("%s: %v, want %q", text, diags, problem)
			}
			continue
		}
		if diags.HasErrors() {
			t.Errorf("%s: %v", text, diags)
			continue
		}
		var got []string
		for _, p := range cfg.TrustedProxies {
			got = append(got, p.String())
		}
		if cfg.TrustUnix {
			got = append(got, "unix")
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
