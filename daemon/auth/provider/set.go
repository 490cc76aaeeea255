package provider

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Settings are one provider as it is configured.
type Settings struct {
	// Name is the provider's in the configuration, Issuer the iss of its tokens, exactly.
	Name, Issuer string
	// ClientID is rtaskctl's at the provider, or empty. Audience is what aud has to be.
	ClientID, Audience string
	// SubjectClaim names the user, GroupsClaim has the groups; empty: "sub", none.
	SubjectClaim, GroupsClaim string
	// Algorithms are those of its signatures. One that its reader could make is never accepted.
	Algorithms []string
	// Session is the longest time that may follow from one of its tokens.
	Session time.Duration
	// Bound says that access tokens which are bound to a certificate are taken as they are.
	Bound bool
	// Nonce says that ID tokens must have the nonce of the key that they are for, since every login goes through a browser.
	Nonce bool
	// JWKSFile has its keys; empty: they are fetched, and good for KeysMaxAge.
	JWKSFile   string
	KeysMaxAge time.Duration
	// Require are claims that a token must have with exactly this text.
	Require map[string]string
}

// Options are where a Set finds and leaves things.
type Options struct {
	// Fetched is the folder in which the fetched keys are.
	Fetched string
	// Again is the path of the file that is changed to have keys fetched before their time.
	Again string
	// Used is the path of the file that remembers used ID tokens, in a folder of the engine's own.
	Used string
	// Read reads a JWKSFile, if only those whom the engine trusts can change it.
	Read func(path string) ([]byte, error)
}

// Set are the configured providers. Many goroutines may use it.
type Set struct {
	opts      Options
	providers atomic.Pointer[[]*provider]
	again     again
	used      used
}

// provider is one with its keys.
type provider struct {
	Settings
	algorithms []jose.SignatureAlgorithm
	source     source
}

// Open returns a Set without providers. It reads which ID tokens were used, so that none is good once more after a restart. An error is
// a warning: this is not known, and ID tokens that were issued until now are refused.
func Open(o Options) (*Set, error) {
	s := &Set{opts: o, again: again{path: o.Again}, used: used{path: o.Used}}
	s.Configure(nil)
	return s, s.used.load(time.Now())
}

// Configure puts other providers in force. Keys that were read stay where the provider is the same.
func (s *Set) Configure(all []Settings) {
	var next []*provider
	before := s.providers.Load()
	for _, settings := range all {
		p := &provider{Settings: settings, algorithms: signatures(settings.Algorithms)}
		if p.SubjectClaim == "" {
			p.SubjectClaim = "sub"
		}
		p.source.init(s.opts, settings)
		if before != nil {
			if i := slices.IndexFunc(*before, func(b *provider) bool {
				return b.Name == p.Name && b.Issuer == p.Issuer && b.JWKSFile == p.JWKSFile
			}); i >= 0 {
				p.source.take(&(*before)[i].source)
			}
		}
		next = append(next, p)
	}
	s.providers.Store(&next)
}

// find returns the provider of a name, or nil.
func (s *Set) find(name string) *provider {
	all := *s.providers.Load()
	if i := slices.IndexFunc(all, func(p *provider) bool { return p.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// algorithms are those that only the holder of a private key can use (RFC 7518, section 3.1, RFC 8037).
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA}
}

// signatures are those of algorithms with these names.
func signatures(names []string) []jose.SignatureAlgorithm {
	return slices.DeleteFunc(algorithms(), func(a jose.SignatureAlgorithm) bool { return !slices.Contains(names, string(a)) })
}
