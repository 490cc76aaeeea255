package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Provider is an OpenID provider whose ID tokens are good for a client certificate.
type Provider struct {
	// Name is as ValidName has it.
	Name string
	// Issuer is the iss of its tokens, exactly.
	Issuer string
	// ClientID is rtaskctl's at the provider, and Audience what aud has to be where that is something else; one of them may be "".
	ClientID, Audience string
	// SubjectClaim is the claim that names the user, and GroupsClaim the one that has the groups; "": none has.
	SubjectClaim, GroupsClaim string
	// Algorithms are the signatures that its tokens may have, none of which its reader could make.
	Algorithms []string
	// Session is the longest time that a certificate is good which follows from a token.
	Session time.Duration
	// Bound says that its access tokens are bound to the client's certificate (RFC 8705) and taken as they are.
	Bound bool
	// Login are the ways to log in that rtaskctl may use: "browser", "device".
	Login []string
	// Scopes are what rtaskctl asks for.
	Scopes []string
	// JWKSFile holds its keys where nobody fetches them, and CAFile those who vouch for its host; "": the machine's.
	JWKSFile, CAFile string
	// DeviceAuthorizationURL takes the place of the one that its discovery document has, or has not.
	DeviceAuthorizationURL string
	// KeysMaxAge is how old its fetched keys may be.
	KeysMaxAge time.Duration
	// Require are claims that a token has to have with just that text.
	Require map[string]string
	// Pos is where it stands.
	Pos Pos
}

// WantedAudience is what aud of a token has to be.
func (p *Provider) WantedAudience() string {
	if p.Audience != "" {
		return p.Audience
	}
	return p.ClientID
}

// reservedProvider is no name of a provider: "spiffe:" and a user whom it named would be the identity of somebody else.
const reservedProvider = "spiffe"

// Provider returns the provider of a name, or nil.
func (c *Config) Provider(name string) *Provider {
	if i := slices.IndexFunc(c.Providers, func(p *Provider) bool { return p.Name == name }); i >= 0 {
		return c.Providers[i]
	}
	return nil
}

// algorithms are the signatures of JSON Web Algorithms (RFC 7518, RFC 8037) that only the holder of a private key can make.
func algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}
}

// providerScope is what may stand in provider "NAME" { … }.
func providerScope() scope[Provider] {
	file := func(field func(*Provider) *string, missing string) kind[Provider] {
		return text(func(d *decoder, v value, p *Provider) {
			if s, ok := d.string(v, false); ok && d.trustedFile(v, s, missing) {
				*field(p) = s
			}
		})
	}
	word := func(field func(*Provider) *string) kind[Provider] {
		return text(func(d *decoder, v value, p *Provider) {
			if s, ok := d.string(v, false); ok {
				*field(p) = s
			}
		})
	}
	return scope[Provider]{
		where: inProvider,
		attributes: []attribute[Provider]{
			{
				name: "issuer", example: `"https://sso.example.org/realms/corp"`,
				kind: text(func(d *decoder, v value, p *Provider) { d.issuer(v, &p.Issuer) }),
				doc: "The URL of the provider, exactly as it stands in `iss` of its tokens. It has to be there. Several providers may " +
					"have the same one: the first in the configuration that takes a token counts, so each needs its own `require`.",
			},
			{
				name: "client_id", example: `"rtaskctl"`,
				kind: word(func(p *Provider) *string { return &p.ClientID }),
				doc:  "The name under which `rtaskctl` is registered at the provider, as a public client.",
			},
			{
				name: "audience", example: `"https://build.example.org:8843"`, otherwise: "client_id",
				kind: word(func(p *Provider) *string { return &p.Audience }),
				doc:  "What `aud` of a token must be. It may name nobody beside that. A provider has `client_id`, `audience` or both.",
			},
			{
				name: "subject_claim", example: `"email"`, fallback: `"sub"`,
				kind: word(func(p *Provider) *string { return &p.SubjectClaim }),
				doc: "The claim that names the user. `email` is accepted only where `email_verified` is true. Choose a claim that the user " +
					"cannot change.",
			},
			{
				name: "groups_claim", example: `"groups"`,
				kind: word(func(p *Provider) *string { return &p.GroupsClaim }),
				doc:  "The claim with the user's groups, which `groups` of a role names. A login with more than 256 is refused, so that nobody lacks some unseen.",
			},
			{
				name: "algorithms", example: `["RS256", "ES256"]`, fallback: `["RS256", "ES256"]`,
				kind: list(func(p *Provider) *[]string { return &p.Algorithms }, func(d *decoder, v value, s string) bool {
					if slices.Contains(algorithms(), s) {
						return true
					}
					name, _, _ := strings.Cut(v.name, "[")
					good := "Good are " + strings.Join(algorithms(), ", ") + "."
					if s == "none" || strings.HasPrefix(s, "HS") {
						d.errorf(v.rng(), good, "%s: %q is no signature that only its maker can make", name, s)
					} else {
						d.errorf(v.rng(), good, "%s: unknown signature %q", name, s)
					}
					return false
				}),
				doc: "The signatures that its tokens may have. Those with a shared secret, and none at all, are refused.",
			},
			{
				name: "session", example: `"16h"`, fallback: `"16h"`,
				kind: lifetime(func(p *Provider) *time.Duration { return &p.Session }, 5*time.Minute, 30*24*time.Hour),
				doc: "How long a certificate is good at most that a user gets for a token of the provider. From 5 minutes to 30 days. " +
					"`user_lifetime` may be shorter.",
			},
			{
				name: "require", example: `{ repository_id = "456789", environment = "production" }`,
				kind: kind[Provider]{word: "object", decode: func(d *decoder, v value, p *Provider) { d.claims(v, &p.Require) }},
				doc: "Claims that a token must have, with exactly these values. For GitHub's issuer `repository_id` or " +
					"`repository_owner_id` must be among them, or every repository of GitHub could log in. Its tokens for pull requests are " +
					"refused unless one of `event_name`, `ref`, `environment` and `sub` is among them, too.",
			},
			{
				name: "bound", example: "true", fallback: "false",
				kind: boolean(func(p *Provider) *bool { return &p.Bound }),
				doc: "Whether its access tokens are bound to the client's certificate (RFC 8705). rtask then accepts them in place of its " +
					"own tokens.",
			},
			{
				name: "login", example: `["browser", "device"]`, fallback: `["browser", "device"]`,
				kind: list(func(p *Provider) *[]string { return &p.Login }, func(d *decoder, v value, s string) bool {
					if s != "browser" && s != "device" {
						d.errorf(v.rng(), `Write for example: login = ["browser", "device"]`, "%s must be browser or device, not %q", v.name, s)
						return false
					}
					return true
				}),
				doc: "How people may log in: by a `browser` on the same machine, or by typing a code on another `device`.",
			},
			{
				name: "scopes", example: `["openid", "email", "groups"]`, fallback: `["openid", "profile", "email"]`,
				kind: list(func(p *Provider) *[]string { return &p.Scopes }, anyText),
				doc:  "The scopes that `rtaskctl` asks for.",
			},
			{
				name: "jwks_file", example: `"/etc/rtask/corp.jwks"`,
				kind: file(func(p *Provider) *string { return &p.JWKSFile }, "Logins with the provider are refused until it can."),
				doc: "A file with the provider's keys, a JSON Web Key Set, for machines that cannot reach the provider. Without it " +
					"`rtask-provider.service` fetches them.",
			},
			{
				name: "ca_file", example: `"/etc/rtask/corp-ca.pem"`, otherwise: "those that the machine trusts",
				kind: file(func(p *Provider) *string { return &p.CAFile }, "The provider's keys cannot be fetched until it can."),
				doc:  "A file with the authorities, in PEM, that may vouch for the provider's host.",
			},
			{
				name: "device_authorization_url", example: `"https://sso.example.org/device"`,
				kind: text(func(d *decoder, v value, p *Provider) { d.httpsURL(v, &p.DeviceAuthorizationURL, true) }),
				doc:  "Where a login with a device begins, for a provider whose discovery document does not say so.",
			},
			{
				name: "keys_max_age", example: `"24h"`, fallback: `"24h"`,
				kind: lifetime(func(p *Provider) *time.Duration { return &p.KeysMaxAge }, time.Hour, 30*24*time.Hour),
				doc: "How old fetched keys may be. With older ones logins are refused, and those who are logged in go on. From an hour to " +
					"30 days.",
			},
		},
	}
}

// issuer sets dst to the URL of a provider, as it is: a slash at its end belongs to it.
func (d *decoder) issuer(v value, dst *string) {
	before := len(d.diags)
	d.httpsURL(v, dst, true)
	if len(d.diags) == before {
		*dst, _ = d.string(v, false)
	}
}

// claims sets dst to the claims of v. A claim's value is text.
func (d *decoder) claims(v value, dst *map[string]string) {
	pairs, diags := hcl.ExprMap(v.expr)
	if diags.HasErrors() {
		if _, kind, ok := d.scalar(v); ok {
			d.wrong(v, "an object", kind)
		}
		return
	}
	all := map[string]string{}
	for _, p := range pairs {
		name, ok := d.key(p.Key, "the name of a claim")
		if !ok {
			continue
		}
		if _, twice := all[name]; twice {
			d.errorf(p.Key.Range(), "", "%s has %s twice", v.name, name)
			continue
		}
		s, ok := d.string(v.element(v.name+" "+name, p.Value), false)
		if ok {
			all[name] = s
		}
	}
	*dst = all
}

// key returns the name before a value of an object.
func (d *decoder) key(key hcl.Expression, what string) (string, bool) {
	if name := hcl.ExprAsKeyword(key); name != "" && !d.source.json {
		return name, true
	}
	inner := key
	if wrapped, ok := key.(*hclsyntax.ObjectConsKeyExpr); ok {
		inner = wrapped.Wrapped
	}
	return d.string(value{name: what, expr: inner}, true)
}

// provider decodes one provider block.
func (b *builder) provider(d *decoder, found *hcl.Block) {
	label := found.LabelRanges[0]
	p := &Provider{Name: found.Labels[0], Pos: d.pos(found.TypeRange)}
	d.tables.provider.begin(p)
	before := len(d.diags)
	whole := decodeBody(d, found.Body, d.tables.provider, p) && !d.diags[before:].HasErrors() // or what is missing may be so for that
	switch first := b.cfg.Provider(p.Name); {
	case !ValidName(p.Name):
		d.errorf(label, fmt.Sprintf("A name is 1 to %d of a–z, 0–9, _ and -, and begins with a letter or a digit.", maxNameLength),
			"%q cannot be the name of a provider", p.Name)
	case p.Name == reservedProvider:
		d.errorf(label, "Identities begin so, and the users of a provider are called PROVIDER:USER.", "%q cannot be the name of a provider", p.Name)
	case first != nil:
		d.errorf(label, fmt.Sprintf("The first is at %s.", first.Pos), "provider %q is defined twice", p.Name)
	case whole && p.Issuer == "":
		d.errorf(found.TypeRange, `Write for example: issuer = "https://sso.example.org/realms/corp"`, "provider %q has no issuer", p.Name)
	case whole && p.WantedAudience() == "":
		d.errorf(found.TypeRange, `Write for example: client_id = "rtaskctl"`, "provider %q has neither client_id nor audience", p.Name)
	case whole && gitHub(p.Issuer) && p.Require["repository_id"] == "" && p.Require["repository_owner_id"] == "":
		d.errorf(found.TypeRange, "With this issuer, require must say at least one of repository_id, repository_owner_id.",
			"provider %q lets every repository in", p.Name)
	}
	b.cfg.Providers = append(b.cfg.Providers, p) // also with errors, or roles would seem to name one that does not exist
}

// gitHub reports whether an issuer gives tokens to the jobs of every repository of GitHub, or of a GitHub Enterprise Server
// (https://HOST/_services/token).
func gitHub(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && (strings.EqualFold(u.Hostname(), "token.actions.githubusercontent.com") || strings.TrimRight(u.Path, "/") == "/_services/token")
}
