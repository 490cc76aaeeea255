package ctl

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// listedJSON is a certificate on record as --json prints it. What is not known is left out.
type listedJSON struct {
	Serial          string   `json:"serial"`
	Identity        string   `json:"identity"`
	State           string   `json:"state"`
	IssuedAt        string   `json:"issued_at"`
	ExpiresAt       string   `json:"expires_at"`
	LastUsedAt      string   `json:"last_used_at,omitempty"`
	RenewedBy       string   `json:"renewed_by,omitempty"`
	RevokedAt       string   `json:"revoked_at,omitempty"`
	RevokedBy       string   `json:"revoked_by,omitempty"`
	Proof           string   `json:"proof,omitempty"`
	RemoteAddr      string   `json:"remote_addr,omitempty"`
	Provider        string   `json:"provider,omitempty"`
	ProviderSubject string   `json:"provider_subject,omitempty"`
	Roles           []string `json:"roles,omitempty"`
}

func listedOf(c *rtaskv1.Certificate) listedJSON {
	return listedJSON{
		c.GetSerial(), c.GetUri(), c.GetState(), view.Time(c.GetIssuedAt()), view.Time(c.GetExpiresAt()), view.Time(c.GetLastUsedAt()), c.GetRenewedBy(),
		view.Time(c.GetRevokedAt()), c.GetRevokedBy(), c.GetProof(), c.GetRemoteAddr(), c.GetProvider(), c.GetProviderSubject(), c.GetRoles(),
	}
}

func (a *app) caList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.List, &rtaskv1.ListCertificatesRequest{})
	if err != nil {
		return err
	}
	var all []string
	for _, one := range r.GetCertificates() {
		all = append(all, one.GetSerial())
	}
	now := time.Now()
	if !c.Bool("json") {
		own, err := callAuthority(a, c, authority.Show, &rtaskv1.ShowRequest{})
		if err != nil {
			return err
		}
		a.say("Authority %s, %s, until %s", printable(own.GetName()), printable(own.GetFingerprint()), own.GetExpiresAt().AsTime().Local().Format(time.DateOnly))
	}
	return listing[*rtaskv1.Certificate, listedJSON]{
		view: listedOf, none: "There are no certificates; rtaskctl ca issue NAME lets somebody have one.",
		header: named("SERIAL", "IDENTITY", "ISSUED", "UNTIL", "LAST USED", "STATE"),
		row: func(k *rtaskv1.Certificate) []string {
			state := k.GetState()
			if by := k.GetRenewedBy(); by != "" && state == "renewed" {
				state += " by " + shortestSerial(by, all)
			}
			return []string{
				shortestSerial(k.GetSerial(), all), k.GetUri(), near(k.GetIssuedAt(), now), near(k.GetExpiresAt(), now), cmp.Or(agoIn(k.GetLastUsedAt(), 1), "never"), state,
			}
		},
	}.print(a, c, r.GetCertificates())
}

// shortestSerial is the beginning of a serial number, of two bytes at least, that no other one has.
func shortestSerial(serial string, all []string) string {
	const first, next = len("3f:a1"), len(":00")
	for n := first; n < len(serial); n += next {
		others := 0
		for _, o := range all {
			if o != serial && strings.HasPrefix(o, serial[:n]) {
				others++
			}
		}
		if others == 0 {
			return serial[:n] + "…"
		}
	}
	return serial
}

// serial is the number of a certificate, as rtaskctl ca list shows it.
func serial(c *x509.Certificate) string {
	parts := make([]string, 0, 20)
	for _, b := range c.SerialNumber.Bytes() {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
}

// shortSerial is its beginning.
func shortSerial(c *x509.Certificate) string {
	const most = len("3f:a1:05:c2")
	if text := serial(c); len(text) > most {
		return text[:most] + "…"
	}
	return serial(c)
}

// shortName is the last part of a certificate's SPIFFE ID, or its common name.
func shortName(c *x509.Certificate) string {
	if len(c.URIs) == 1 {
		return c.URIs[0].Path[strings.LastIndex(c.URIs[0].Path, "/")+1:]
	}
	return c.Subject.CommonName
}

func (a *app) caRevoke(c *cli.Context) error {
	ref, err := oneArg(c, "NAME|SERIAL")
	if err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Revoke, &rtaskv1.RevokeRequest{Certificate: ref})
	if err != nil {
		return err
	}
	what := plural(int32(len(r.GetCertificates())), "certificate")
	if n := r.GetJoinTokens(); n > 0 {
		what += " and " + plural(n, "join token")
	}
	_, name := cutID(r.GetUri())
	return a.result(c, struct {
		Identity     string       `json:"identity"`
		Certificates []listedJSON `json:"certificates"`
		JoinTokens   int32        `json:"join_tokens"`
		Streams      int32        `json:"streams"`
		QueuedJobs   int32        `json:"queued_jobs"`
	}{r.GetUri(), view.Each(r.GetCertificates(), listedOf), r.GetJoinTokens(), r.GetStreams(), r.GetQueuedJobs()},
		fmt.Sprintf("Revoked %s of %s; ended %s, %s.\n", what, printable(name), plural(r.GetStreams(), "stream"), plural(r.GetQueuedJobs(), "queued job")))
}
