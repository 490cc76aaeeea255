package authority

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Identity is whose a client certificate is.
type Identity struct {
	// URI is its SPIFFE ID (https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/), spiffe://example.org/user/admin1; "": a certificate of
	// another authority has none.
	URI string
	// Subject is the distinguished name, in the form of RFC 2253, of a certificate of another authority. The own ones are known by
	// their URI alone, so for them it is "".
	Subject string
	// Serial is the certificate's, two hexadecimal digits a byte, with colons between.
	Serial string
	// Until is when the certificate, or the first one on its way to its authority, ends.
	Until time.Time
	// Provider is who vouched for the identity when it enrolled, by its name in the configuration, ProviderSubject what it calls the
	// user, and Groups the groups that it said; empty: nobody did.
	Provider, ProviderSubject string
	Groups                    []string
	// Roles are names of roles that an administrator gave at the enrolment, beside those that the configuration gives.
	Roles []string
	// Machine says that the certificate may be renewed without a person.
	Machine bool
	// Own says that it is a certificate of this authority.
	Own bool
}

// Name is what records and people call the identity: its URI, or its distinguished name.
func (i Identity) Name() string {
	if i.URI != "" {
		return i.URI
	}
	return i.Subject
}

// Kind is what an identity is for.
type Kind string

// The kinds, as they stand in a URI.
const (
	User    Kind = "user"
	Machine Kind = "machine"
	Host    Kind = "host" // its certificate is good for a server of that name, too
)

// Grant is what a new certificate is to say, and why.
type Grant struct {
	Kind Kind
	// Name is the last part of the URI: see CheckName. That of a user whom a provider vouches for is made of ProviderSubject.
	Name string
	// Roles, Provider, ProviderSubject and Groups are those of Identity. Email says that ProviderSubject is a verified address. Who grants
	// them has bounded them.
	Roles                     []string
	Provider, ProviderSubject string
	Email                     bool
	Groups                    []string
	// Life is how long it is good at most; 0: as long as its kind.
	Life time.Duration
	// Proof is what was shown: "join", "device", "provider", "renewal", "administrator". Remote is from where, "" from here.
	Proof, Remote string
}

// maxName is how many characters a name has: a label of DNS, and some room for names of hosts.
const maxName = 128

// CheckName returns an error for what cannot be the name of an identity: letters, digits and .-_ (SPIFFE ID, section 2.2), beginning
// with a letter or a digit.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.Trim(name[:1], alphanumeric) != "" || strings.Trim(name, alphanumeric+".-_") != "" {
		return fmt.Errorf("%w: %.40q is not 1 to %d letters, digits and .-_, beginning with a letter or a digit", ErrBadName, name, maxName)
	}
	return nil
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// CheckDomain returns an error for what cannot be a trust domain (SPIFFE ID, section 2.1): lower-case letters, digits and .-_.
func CheckDomain(name string) error {
	if name == "" || len(name) > 64 || strings.Trim(name[:1], alphanumeric) != "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return fmt.Errorf("%w: %.40q is not 1 to 64 lower-case letters, digits and .-_, such as example.org", ErrBadName, name)
	}
	return nil
}

// path is the path of the URI of a grant. A user's verified address in the trust domain gives its first part; whatever else a provider
// says stands behind the provider's name, so that no provider names the users of another one.
func (g Grant) path(domain string) (string, error) {
	if g.Provider == "" {
		if err := CheckName(g.Name); err != nil {
			return "", err
		}
		return string(g.Kind) + "/" + g.Name, nil
	}
	if err := CheckName(g.Provider); err != nil {
		return "", err
	}
	if g.ProviderSubject == "" || len(g.ProviderSubject) > maxText {
		return "", fmt.Errorf("%w: the provider %s names nobody, or in more than %d bytes", ErrBadName, g.Provider, maxText)
	}
	if local, of, ok := strings.Cut(g.ProviderSubject, "@"); ok && g.Email && of == domain && CheckName(local) == nil {
		return string(g.Kind) + "/" + local, nil
	}
	return string(g.Kind) + "/" + g.Provider + "/" + segment(g.ProviderSubject), nil
}

// segment is a part of a path for any text: the text itself where that is possible, otherwise what can be read of it, and a part of its
// hash, so that two texts never give the same.
func segment(text string) string {
	const readable, hashed = 40, 16
	if CheckName(text) == nil && len(text) <= hashed {
		return text // which is shorter than any that has a hash
	}
	var b strings.Builder
	for _, c := range []byte(text) {
		if b.Len() == readable {
			break
		}
		if strings.IndexByte(alphanumeric+".-_", c) < 0 {
			c = '-'
		}
		b.WriteByte(c)
	}
	sum := sha256.Sum256([]byte(text))
	return strings.TrimLeft(b.String(), ".-_") + "." + hex.EncodeToString(sum[:hashed/2])
}

// spiffeID returns a URI if it is a SPIFFE ID with a path, and its trust domain.
func spiffeID(u *url.URL) (id, domain string, ok bool) {
	id = u.String()
	if u.Scheme != "spiffe" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || len(id) > 2048 {
		return "", "", false
	}
	path, ok := strings.CutPrefix(u.Path, "/")
	if !ok || u.Host == "" || strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" || id != "spiffe://"+u.Host+u.Path {
		return "", "", false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.Trim(part, alphanumeric+".-_") != "" {
			return "", "", false
		}
	}
	return id, u.Host, true
}

// serialText is a serial number as people and records have it: 3f:a1:…
func serialText(number []byte) string {
	var b strings.Builder
	for i, c := range number {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02x", c)
	}
	return b.String()
}
