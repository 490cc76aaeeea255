package ctl

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/credentials"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/api/view"
)

// authority names the methods that callAuthority takes, such as authority.Show.
type authority = rtaskv1connect.AuthorityServiceClient

// callAuthority makes one call to the authority of the engine that the command line and the environment mean.
func callAuthority[Q, R any](a *app, c *cli.Context, m func(authority, context.Context, *Q) (*R, error), request *Q) (*R, error) {
	if _, err := a.socket(c, "certificates are made and revoked on the engine's own machine"); err != nil {
		return nil, err
	}
	engine, err := a.connect(c)
	if err != nil {
		return nil, err
	}
	r, err := m(engine.Authority, c.Context, request)
	if connect.CodeOf(err) == connect.CodeFailedPrecondition {
		err = &hintError{err, "rtaskctl ca init makes an authority; rtaskctl doctor shows what is missing"}
	}
	return r, err
}

// The files of the sealed keys; see the units' LoadCredentialEncrypted=.
const (
	sealedAuthority = "rtask-ca.key"
	sealedTokens    = "rtask-token.key"
	sealedGateway   = "rtask-remote.key"
	sealedNext      = "rtask-ca.key.next"
)

func (a *app) caCommand() *cli.Command {
	kinds := []cli.Flag{
		boolFlag("for a machine, which renews its certificate by itself", "machine"),
		boolFlag("for a server of this name, whose certificate clients believe, too", "server"),
		roleFlag(),
	}
	return &cli.Command{
		Name: "ca", Usage: "make certificates for clients on other machines, list and revoke them", UsageText: "rtaskctl ca init|issue|list|renew|revoke|rotate|export",
		Subcommands: []*cli.Command{
			{
				Name: "init", Usage: "make the authority, and the keys of remote access", UsageText: "rtaskctl ca init [--name NAME] [--tpm] [--json]",
				Description: "Keys are encrypted with this machine's key by systemd-creds. Without systemd rtaskd keeps them in its state folder.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "name", Usage: "call the authority `NAME`, such as example.org (default: the machine's name)"},
					boolFlag("encrypt the keys with the machine's TPM2 chip, too", "tpm"), jsonFlag(),
				},
				Action: a.caInit,
			},
			{
				Name: "issue", Usage: "let somebody log in once, or make a certificate",
				UsageText: "rtaskctl ca issue [--machine | --server] [--role ROLE…] [--csr FILE|- | --out FOLDER] [--json] NAME",
				Description: "Prints a join token: whoever uses it first, within an hour, gets a certificate as NAME. With --csr or --out it makes the\n" +
					"certificate now, for a machine that cannot call.",
				Flags: append(kinds[:len(kinds):len(kinds)],
					&cli.StringFlag{Name: "csr", Usage: "make a certificate for the signing request in `FILE`, and print it"},
					&cli.StringFlag{Name: "out", Usage: "make a key and a certificate, and write them to `FOLDER`"}, jsonFlag()),
				Action: a.caIssue,
			},
			{
				Name: "list", Usage: "list the certificates", UsageText: "rtaskctl ca list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.caList,
			},
			{
				Name: "renew", Usage: "renew your own certificate now, or that of a machine that cannot call", UsageText: "rtaskctl ca renew [--json] [NAME|SERIAL]",
				Description: "With a name it is an administrator's: makes another certificate for the key of the last one, and prints it.\n" +
					"Without one it renews that of the context, of a machine; rtaskctl does so by itself when it is time.",
				Flags: []cli.Flag{jsonFlag()}, Action: a.caRenew,
			},
			{
				Name: "revoke", Usage: "revoke the certificates and join tokens of NAME, or one certificate", UsageText: "rtaskctl ca revoke [--json] NAME|SERIAL",
				Description: "What their clients wait for or follow ends before this command returns, and so do their jobs that wait in a queue.",
				Flags:       []cli.Flag{jsonFlag()}, Action: a.caRevoke,
			},
			{
				Name: "rotate", Usage: "give the authority a new key", UsageText: "rtaskctl ca rotate [--distrust-old] [--tpm] [--json]",
				Description: "What the old key has signed stays good until the last of it has ended.",
				Flags: []cli.Flag{
					boolFlag("revoke all that the old key has signed, because others may know it", "distrust-old"),
					boolFlag("encrypt the key with the machine's TPM2 chip, too", "tpm"), jsonFlag(),
				},
				Action: a.caRotate,
			},
			{
				Name: "export", Usage: "print the authority's certificates, for remote.authorities of other machines", UsageText: "rtaskctl ca export [--crl]",
				Flags: []cli.Flag{boolFlag("print its lists of revoked certificates, for crl_files", "crl")}, Action: a.caExport,
			},
		},
	}
}

// roleFlag gives an identity roles beside those that the configuration gives it.
func roleFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "role", Usage: "give it the `ROLE` of the configuration, beside those whose subjects name it; may come several times"}
}

// identityOf is the identity that the flags of a command describe.
func identityOf(c *cli.Context, name string) (*rtaskv1.Identity, error) {
	i := &rtaskv1.Identity{Name: name, Kind: rtaskv1.IdentityKind_IDENTITY_KIND_USER, Roles: c.StringSlice("role")}
	switch {
	case c.Bool("machine") && c.Bool("server"):
		return nil, misuse(c, "--machine and --server exclude each other")
	case c.Bool("machine"):
		i.Kind = rtaskv1.IdentityKind_IDENTITY_KIND_MACHINE
	case c.Bool("server"):
		i.Kind = rtaskv1.IdentityKind_IDENTITY_KIND_HOST
	}
	return i, nil
}

func (a *app) caInit(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	now, err := callAuthority(a, c, authority.Show, &rtaskv1.ShowRequest{})
	if err != nil {
		return err
	}
	if now.GetExists() {
		return &hintError{fmt.Errorf("there is an authority already: %s, %s", printable(now.GetName()), printable(now.GetFingerprint())), "rtaskctl ca rotate gives it a new key"}
	}
	request, gateway, err := newKeys(c.String("name"))
	if err != nil {
		return err
	}
	store := credentials.Store{Folder: credentials.DefaultFolder, TPM: c.Bool("tpm")}
	if !now.GetSealed() {
		if c.Bool("tpm") {
			return errors.New("--tpm: the engine keeps its keys itself, since it is not a service of systemd's")
		}
		request.GatewayKey = gateway
	} else if err := a.seal(c.Context, store, map[string]sealing{
		sealedAuthority: {"ca.key", request.AuthorityKey}, sealedTokens: {"token.key", request.TokenKey}, sealedGateway: {"remote.key", gateway},
	}); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Init, request)
	if err != nil {
		if now.GetSealed() {
			err = errors.Join(err, store.Remove(sealedAuthority), store.Remove(sealedTokens), store.Remove(sealedGateway))
		}
		return err
	}
	if c.Bool("json") {
		return a.printJSON(authorityOf(r.GetAuthority()))
	}
	next := "systemctl enable --now rtask-remote.socket"
	if !now.GetSealed() {
		next = "rtaskctl ca issue NAME"
	}
	return a.print(authorityText(r.GetAuthority(), c.Bool("tpm")) + "Next: " + next + "\n")
}

// newKeys makes the keys of remote access; the gateway's is not in the request but its signing request is.
func newKeys(name string) (request *rtaskv1.InitRequest, gateway []byte, err error) {
	request = &rtaskv1.InitRequest{Name: name, TokenKey: make([]byte, 32)}
	_, _ = rand.Read(request.TokenKey) // never fails (crypto/rand)
	if request.AuthorityKey, _, err = newKey(); err != nil {
		return nil, nil, err
	}
	gateway, request.GatewayCsr, err = newKey()
	return request, gateway, err
}

// sealing is a secret, and the name of the credential that it becomes.
type sealing struct {
	credential string
	secret     []byte
}

// seal seals secrets, by the names of their files: all of them or none.
func (a *app) seal(ctx context.Context, store credentials.Store, all map[string]sealing) error {
	if a.env.UID != 0 {
		return &hintError{errors.New("only root can seal keys for systemd"), "sudo rtaskctl ca init"}
	}
	for file := range all {
		if err := store.Missing(file); err != nil {
			return &hintError{fmt.Errorf("cannot make the key %w", err), "if it is of an authority that is gone, move it away"}
		}
	}
	for file, s := range all {
		if err := store.Seal(ctx, s.credential, file, s.secret); err != nil {
			for file := range all {
				err = errors.Join(err, store.Remove(file))
			}
			return err
		}
	}
	return nil
}

// authorityText says what an authority is.
func authorityText(r *rtaskv1.ShowResponse, tpm bool) string {
	keys := credentials.DefaultFolder + " (host key of this machine)"
	switch {
	case !r.GetSealed():
		keys = printable(r.GetStateFolder()) + " (only the engine's user can read them)"
	case tpm:
		keys = credentials.DefaultFolder + " (host key and TPM2 chip of this machine)"
	}
	return fmt.Sprintf("Authority %s, until %s\n  %s   compare this at the first login\nKeys: %s\n",
		printable(r.GetName()), r.GetExpiresAt().AsTime().Local().Format(time.DateOnly), printable(r.GetFingerprint()), keys)
}

// authorityJSON is an authority as --json prints it.
type authorityJSON struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	ExpiresAt   string `json:"expires_at"`
	URL         string `json:"url"`
}

func authorityOf(r *rtaskv1.ShowResponse) authorityJSON {
	return authorityJSON{Name: r.GetName(), Fingerprint: r.GetFingerprint(), ExpiresAt: view.Time(r.GetExpiresAt()), URL: r.GetUrl()}
}

func (a *app) caIssue(c *cli.Context) error {
	name, err := oneArg(c, "NAME")
	if err != nil {
		return err
	}
	identity, err := identityOf(c, name)
	if err != nil {
		return err
	}
	switch {
	case c.IsSet("csr") && c.IsSet("out"):
		return misuse(c, "--csr and --out exclude each other")
	case c.IsSet("csr"):
		csr, err := a.input(c.Context, c.String("csr"))
		if err != nil {
			return err
		}
		r, err := callAuthority(a, c, authority.Sign, &rtaskv1.SignRequest{Identity: identity, Csr: csr})
		if err != nil {
			return err
		}
		return a.printCertificate(c, r)
	case c.IsSet("out"):
		return a.caIssueTo(c, identity)
	}
	r, err := callAuthority(a, c, authority.Issue, &rtaskv1.IssueRequest{Identity: identity})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(struct {
			JoinToken string `json:"join_token"`
			Identity  string `json:"identity"`
			Address   string `json:"address"`
			ExpiresAt string `json:"expires_at"`
		}{r.GetJoinToken(), r.GetUri(), r.GetAddress(), view.Time(r.GetExpiresAt())})
	}
	a.say("For one login within 1 h:  rtaskctl login --join rtj1_…")
	return a.print(printable(r.GetJoinToken()) + "\n")
}

// caIssueTo makes a key, has it certified, and writes all that a client needs to a folder.
func (a *app) caIssueTo(c *cli.Context, identity *rtaskv1.Identity) error {
	folder := c.String("out")
	if folder == "" {
		return misuse(c, "--out: it is empty")
	}
	// Made before the certificate is, so that nothing is issued that cannot be written.
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder for the key: %w", err)
	}
	key, csr, err := newKey()
	var r *rtaskv1.CertificateResponse
	if err == nil {
		r, err = callAuthority(a, c, authority.Sign, &rtaskv1.SignRequest{Identity: identity, Csr: csr})
	}
	if err != nil {
		return errors.Join(err, os.Remove(folder))
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{"key.pem", key}, {"cert.pem", r.GetCertificate()}, {"ca.pem", r.GetAuthorities()}} {
		if err := writeNew(folder, f.name, f.content); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return a.printJSON(certificateOf(r))
	}
	return a.print(fmt.Sprintf("%s until %s: %s/key.pem, cert.pem, ca.pem\n", printable(r.GetUri()), moment(r.GetExpiresAt()), printable(strings.TrimRight(folder, "/"))))
}

// certificateJSON is a new certificate as --json prints it.
type certificateJSON struct {
	Identity    string `json:"identity"`
	Serial      string `json:"serial"`
	ExpiresAt   string `json:"expires_at"`
	Certificate string `json:"certificate"`
	Authorities string `json:"authorities"`
}

func certificateOf(r *rtaskv1.CertificateResponse) certificateJSON {
	return certificateJSON{r.GetUri(), r.GetSerial(), view.Time(r.GetExpiresAt()), string(r.GetCertificate()), string(r.GetAuthorities())}
}

// printCertificate prints a certificate that was made, in PEM.
func (a *app) printCertificate(c *cli.Context, r *rtaskv1.CertificateResponse) error {
	if c.Bool("json") {
		return a.printJSON(certificateOf(r))
	}
	a.say("%s, serial %s, until %s", printable(r.GetUri()), printable(r.GetSerial()), moment(r.GetExpiresAt()))
	return a.print(lines(string(r.GetCertificate())) + "\n")
}

func (a *app) caRenew(c *cli.Context) error {
	if where, err := a.where(c); err != nil {
		return err
	} else if where.remote != nil && c.NArg() == 0 {
		return a.renewOwn(c, where)
	}
	ref, err := oneArg(c, "NAME|SERIAL")
	if err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Renew, &rtaskv1.RenewRequest{Certificate: ref})
	if err != nil {
		return err
	}
	return a.printCertificate(c, r)
}

// renewOwn renews the certificate of the context that is meant.
func (a *app) renewOwn(c *cli.Context, where target) error {
	cert, err := where.remote.Renew(c.Context)
	if err != nil {
		return err
	}
	until := timestamppb.New(cert.Leaf.NotAfter)
	if c.Bool("json") {
		return a.printJSON(struct {
			Name      string `json:"name"`
			Serial    string `json:"serial"`
			ExpiresAt string `json:"expires_at"`
		}{where.context.Name, serial(cert.Leaf), view.Time(until)})
	}
	return a.print(fmt.Sprintf("Renewed the certificate of %s for %s, serial %s, until %s\n", printable(shortName(cert.Leaf)), printable(hostOf(where.context.URL)), shortSerial(cert.Leaf), moment(until)))
}

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
		header: []string{"SERIAL", "IDENTITY", "ISSUED", "UNTIL", "LAST USED", "STATE"},
		row: func(k *rtaskv1.Certificate) []string {
			state := k.GetState()
			if by := k.GetRenewedBy(); by != "" && state == "renewed" {
				state += " by " + shortestSerial(by, all)
			}
			return []string{
				shortestSerial(k.GetSerial(), all), k.GetUri(), near(k.GetIssuedAt(), now), near(k.GetExpiresAt(), now), cmp.Or(ago(k.GetLastUsedAt()), "never"), state,
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

// near is a time for a table: with the hour if that is not far from now, else the date.
func near(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return ""
	}
	at := t.AsTime().Local()
	switch {
	case now.Sub(at).Abs() < 48*time.Hour:
		return at.Format("01-02 15:04")
	case at.Year() == now.Year():
		return at.Format("01-02")
	default:
		return at.Format(time.DateOnly)
	}
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
	if c.Bool("json") {
		return a.printJSON(struct {
			Identity     string       `json:"identity"`
			Certificates []listedJSON `json:"certificates"`
			JoinTokens   int32        `json:"join_tokens"`
			Streams      int32        `json:"streams"`
			QueuedJobs   int32        `json:"queued_jobs"`
		}{r.GetUri(), view.Each(r.GetCertificates(), listedOf), r.GetJoinTokens(), r.GetStreams(), r.GetQueuedJobs()})
	}
	what := plural(int32(len(r.GetCertificates())), "certificate")
	if n := r.GetJoinTokens(); n > 0 {
		what += " and " + plural(n, "join token")
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(r.GetUri(), "spiffe://"), "/")
	_, name, _ := strings.Cut(path, "/")
	return a.print(fmt.Sprintf("Revoked %s of %s; ended %s, %s.\n", what, printable(name), plural(r.GetStreams(), "stream"), plural(r.GetQueuedJobs(), "queued job")))
}

func (a *app) caRotate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	now, err := callAuthority(a, c, authority.Show, &rtaskv1.ShowRequest{})
	if err != nil {
		return err
	}
	key, _, err := newKey()
	if err != nil {
		return err
	}
	store := credentials.Store{Folder: credentials.DefaultFolder, TPM: c.Bool("tpm")}
	if now.GetExists() && now.GetSealed() {
		if err := a.seal(c.Context, store, map[string]sealing{sealedNext: {"ca.key", key}}); err != nil {
			return err
		}
	}
	r, err := callAuthority(a, c, authority.Rotate, &rtaskv1.RotateRequest{AuthorityKey: key, Distrust: c.Bool("distrust-old")})
	if err != nil {
		if now.GetSealed() && answered(err) { // else it may have been done
			err = errors.Join(err, store.Remove(sealedNext))
		}
		return err
	}
	if now.GetSealed() {
		if err := store.Move(sealedNext, sealedAuthority); err != nil {
			return &hintError{fmt.Errorf("the authority has its new key, but it could not be put in its place: %w", err), "mv " + store.Path(sealedNext) + " " + store.Path(sealedAuthority)}
		}
	}
	if c.Bool("json") {
		return a.printJSON(authorityOf(r.GetAuthority()))
	}
	old := "What the old key has signed stays good until it ends.\n"
	if c.Bool("distrust-old") {
		old = "What the old key has signed is good for nothing now: everybody logs in again.\n"
	}
	return a.print(authorityText(r.GetAuthority(), c.Bool("tpm")) + old)
}

// answered reports whether the engine itself refused a call.
func answered(err error) bool {
	var e *connect.Error
	return errors.As(err, &e) && e.IsRemote()
}

func (a *app) caExport(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Export, &rtaskv1.ExportRequest{})
	if err != nil {
		return err
	}
	if !c.Bool("crl") {
		return a.print(lines(string(r.GetCertificates())) + "\n")
	}
	if len(r.GetRevocationLists()) == 0 {
		return errors.New("the engine does not have the authority's key, so there is no list of revoked certificates")
	}
	return a.print(lines(string(r.GetRevocationLists())) + "\n")
}
