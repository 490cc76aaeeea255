package config

import (
	"net/url"
	"path"
	"strings"
	"time"
)

// OwnAuthority is how authorities names rtask's own authority, which `rtaskctl ca init` makes.
const OwnAuthority = "rtask"

// Remote is who may call from other machines, and how.
type Remote struct {
	// URL is the issuer and the audience of rtask's tokens: https://HOST:PORT, without a slash at its end; "": nothing is said,
	// see RemoteURL.
	URL string
	// Authorities are whose client certificates are good: OwnAuthority, and absolute paths of PEM files.
	Authorities []string
	// CRLFiles are absolute paths of the revocation lists of the others, PEM or DER.
	CRLFiles []string
	// StaleCRL says what to do with the certificates of an authority whose revocation list is past its nextUpdate.
	StaleCRL StaleCRL
	// TokenTTL is how long a token is good.
	TokenTTL time.Duration
}

// StaleCRL is what to do with certificates whose revocation list is out of date.
type StaleCRL string

// The values of StaleCRL.
const (
	// StaleCRLRefuse refuses them, the default.
	StaleCRLRefuse StaleCRL = "refuse"
	// StaleCRLWarn takes them and says so.
	StaleCRLWarn StaleCRL = "warn"
)

// Authority is how long the certificates of rtask's own authority are good.
type Authority struct {
	UserLifetime, MachineLifetime time.Duration
	// RenewExpired is how long after its end a machine's certificate may still be renewed; 0: not at all.
	RenewExpired time.Duration
}

// remotePort is where rtask-remote.socket listens.
const remotePort = "8843"

// RemoteURL is how the world calls the remote API: remote.url, or the machine's name where that says nothing.
func (c *Config) RemoteURL(hostname string) string {
	if c.Remote.URL != "" {
		return c.Remote.URL
	}
	return "https://" + strings.ToLower(hostname) + ":" + remotePort
}

// remoteScope is what may stand in remote { … }.
func remoteScope() scope[Remote] {
	return scope[Remote]{
		where: inRemote,
		attributes: []attribute[Remote]{
			{
				name: "url", example: `"https://build.example.org:8843"`, otherwise: "the name of the machine, with port 8843",
				kind: text(func(d *decoder, v value, r *Remote) { d.httpsURL(v, &r.URL, false) }),
				doc: "How clients call the remote API. It is the issuer and the audience of rtask's tokens, so a token of one machine is " +
					"good on no other. After a change clients need new tokens, which `rtaskctl` fetches by itself.",
			},
			{
				name: "authorities", example: `["rtask", "/etc/rtask/corp-ca.pem"]`, fallback: `["rtask"]`,
				kind: list(func(r *Remote) *[]string { return &r.Authorities }, func(d *decoder, v value, s string) bool {
					return s == OwnAuthority || d.trustedFile(v, s, "Its certificates are refused until it can.")
				}),
				doc: "Whose client certificates are good: `rtask` is the authority that `rtaskctl ca init` makes, others are files with " +
					"certificates in PEM. Others than root must not be able to write such a file.",
			},
			{
				name: "crl_files", example: `["/etc/rtask/corp.crl"]`,
				kind: list(func(r *Remote) *[]string { return &r.CRLFiles }, func(d *decoder, v value, s string) bool {
					return d.trustedFile(v, s, "It counts as out of date until it can: see stale_crl.")
				}),
				doc: "Files with the revocation lists of the other authorities, in PEM or DER. rtaskd(8) looks at them every minute and " +
					"at each reload. rtask's own authority needs none.",
			},
			{
				name: "stale_crl", example: `"refuse"`, fallback: `"refuse"`,
				kind: choice(func(r *Remote) *StaleCRL { return &r.StaleCRL }, StaleCRLRefuse, StaleCRLWarn),
				doc: "What to do with the certificates of an authority whose revocation list is past its time: `\"refuse\"` them, or " +
					"`\"warn\"` and accept those that the list does not revoke.",
			},
			{
				name: "token_ttl", example: `"1h"`, fallback: `"1h"`,
				kind: lifetime(func(r *Remote) *time.Duration { return &r.TokenTTL }, time.Minute, 24*time.Hour),
				doc: "How long a token is good. `rtaskctl` fetches the next one by itself. From one minute to a day. A revoked certificate " +
					"ends its tokens immediately, however long they are good.",
			},
		},
	}
}

// authorityScope is what may stand in authority { … }.
func authorityScope() scope[Authority] {
	const day = 24 * time.Hour
	return scope[Authority]{
		where: inAuthority,
		attributes: []attribute[Authority]{
			{
				name: "user_lifetime", example: `"16h"`, fallback: `"16h"`,
				kind: lifetime(func(a *Authority) *time.Duration { return &a.UserLifetime }, 5*time.Minute, 90*day),
				doc:  "How long the certificate of a person is good, who then logs in again. From 5 minutes to 90 days.",
			},
			{
				name: "machine_lifetime", example: `"30d"`, fallback: `"30d"`,
				kind: lifetime(func(a *Authority) *time.Duration { return &a.MachineLifetime }, time.Hour, 825*day),
				doc: "How long the certificate of a machine is good. `rtaskctl` renews it after two thirds of that time. From an hour to " +
					"825 days.",
			},
			{
				name: "renew_expired", example: `"72h"`, fallback: `"72h"`,
				kind: lifetime(func(a *Authority) *time.Duration { return &a.RenewExpired }, 0, 90*day),
				doc: "How long after its end a machine's certificate may still be renewed with its key, unless it was revoked. After that " +
					"the machine needs a join token. 90 days at most; 0 is not at all.",
			},
		},
	}
}

// lifetime is a duration from least to most.
func lifetime[T any](field func(*T) *time.Duration, least, most time.Duration) kind[T] {
	return kind[T]{word: "duration", decode: func(d *decoder, v value, t *T) {
		got := *field(t)
		d.duration(v, &got, false)
		switch {
		case got < least:
			d.errorf(v.rng(), v.usage(), "%s must be %s at least", v.name, shortDuration(least))
		case got > most:
			d.errorf(v.rng(), v.usage(), "%s must be %s at most", v.name, shortDuration(most))
		default:
			*field(t) = got
		}
	}}
}

// shortDuration writes a whole number of days, hours or minutes as a file would.
func shortDuration(t time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case t%day == 0 && t >= day:
		return strings.TrimSuffix((t/24).String(), "h0m0s") + "d"
	case t%time.Hour == 0:
		return strings.TrimSuffix(t.String(), "0m0s")
	}
	return strings.TrimSuffix(t.String(), "0s")
}

// httpsURL sets dst to an https URL, without a slash at its end; with deep, it may have a path.
func (d *decoder) httpsURL(v value, dst *string, deep bool) {
	s, ok := d.string(v, false)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	if err == nil && u.Host != "" && u.Scheme == "https" && !strings.ContainsAny(s, "?#") && u.User == nil &&
		(deep || strings.Trim(u.Path, "/") == "") && u.Hostname() != "" && u.Opaque == "" {
		*dst = strings.TrimRight(s, "/")
		return
	}
	if deep {
		d.errorf(v.rng(), v.usage(), "%s is not https://HOST, perhaps with a path", v.name)
	} else {
		d.errorf(v.rng(), v.usage(), "%s is not https://HOST, perhaps with a port", v.name)
	}
}

// trustedFile checks the path of a file that only root may write; with missing it warns that the file cannot be read now.
func (d *decoder) trustedFile(v value, file, missing string) bool {
	switch {
	case !path.IsAbs(file):
		d.errorf(v.rng(), `It must begin with a slash: "/etc/rtask/corp-ca.pem"`, "%s: %q is not absolute", v.name, file)
		return false
	case path.Clean(file) != file:
		d.errorf(v.rng(), "Write it as "+path.Clean(file)+".", "%s: %q is not the shortest way to write this path", v.name, file)
		return false
	}
	if d.opts.CheckFile == nil {
		return true
	}
	if err := d.opts.CheckFile(file); err != nil {
		d.warnf(v.rng(), missing, "%s cannot be read: %v", v.name, err)
	}
	return true
}
