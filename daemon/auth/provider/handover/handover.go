// Package handover has the two files by which the engine, which has no network, gets the public keys of OpenID providers: the engine
// writes which ones it wants, and `rtaskctl provider fetch`, which systemd runs as a unit of its own, writes what it fetched.
//
// It is the files' content and its bounds, no more. daemon/auth/provider, daemon and ctl may import it.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// WantedName is the file in the engine's runtime folder that says which keys to fetch, and AgainName the one that it changes when
	// they are needed before their time.
	WantedName, AgainName = "providers.json", "provider.want"
	// MaxWanted and MaxKeys are the most bytes of the files.
	MaxWanted, MaxKeys = 1 << 20, 256 << 10
)

// Wanted is the content of WantedName.
type Wanted struct {
	Providers []Provider `json:"providers"`
}

// Provider is one whose keys are to be fetched.
type Provider struct {
	// Name is of letters, digits, _ and -, and so may be the name of a file. Issuer is where its discovery document is (OpenID Connect
	// Discovery 1.0, section 4).
	Name   string `json:"name"`
	Issuer string `json:"issuer"`
	// CAFile has the authorities that vouch for its host; empty: the machine's.
	CAFile string `json:"ca_file,omitempty"`
}

// Keys is the content of a file of fetched keys.
type Keys struct {
	Issuer  string    `json:"issuer"`
	Fetched time.Time `json:"fetched_at"`
	// JWKS is a JWK set (RFC 7517).
	JWKS json.RawMessage `json:"jwks"`
}

// KeysName is the name of the file with the keys of a provider.
func KeysName(provider string) string { return provider + ".json" }

// ParseWanted reads the content of WantedName. A name that could lead to another folder is an error.
func ParseWanted(text []byte) (Wanted, error) {
	var w Wanted
	if len(text) > MaxWanted {
		return w, fmt.Errorf("it is longer than %d bytes", MaxWanted)
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return Wanted{}, errors.New("it is not JSON with a list of providers")
	}
	for _, p := range w.Providers {
		if p.Name == "" || strings.Trim(strings.ToLower(p.Name), "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return Wanted{}, fmt.Errorf("%.40q cannot be the name of a provider", p.Name)
		}
	}
	return w, nil
}

// ParseKeys reads the content of a file of fetched keys.
func ParseKeys(text []byte) (Keys, error) {
	var k Keys
	if len(text) > MaxKeys {
		return k, fmt.Errorf("it is longer than %d bytes", MaxKeys)
	}
	if err := json.Unmarshal(text, &k); err != nil || len(k.JWKS) == 0 || k.Issuer == "" || k.Fetched.IsZero() {
		return Keys{}, errors.New("it is not JSON with issuer, fetched_at and jwks")
	}
	return k, nil
}
