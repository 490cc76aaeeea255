package ctl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/contexts"
	"github.com/rtask/rtask/ctl/credentials"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
)

// The files of the sealed keys; see the units' LoadCredentialEncrypted=.
const (
	sealedAuthority = "rtask-ca.key"
	sealedTokens    = "rtask-token.key"
	sealedGateway   = "rtask-remote.key"
	// The next ones are there only while one of the others is replaced.
	sealedNext        = sealedAuthority + ".next"
	sealedGatewayNext = sealedGateway + ".next"
)

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
	store := credentials.Store{Folder: a.credstore, TPM: c.Bool("tpm")}
	if !now.GetSealed() {
		if c.Bool("tpm") {
			return errors.New("--tpm: the engine keeps its keys itself, since it is not a service of systemd's")
		}
		request.GatewayKey = gateway
	} else {
		unlock, err := a.seal(c.Context, c.Command.HelpName, store, map[string]sealing{
			sealedAuthority: {"ca.key", request.AuthorityKey}, sealedTokens: {"token.key", request.TokenKey}, sealedGateway: {"remote.key", gateway},
		})
		if err != nil {
			return err
		}
		defer unlock()
	}
	r, err := callAuthority(a, c, authority.Init, request)
	if err != nil {
		if now.GetSealed() {
			stay := "there may be an authority now, so its sealed keys stay: systemctl restart rtask.service, then rtaskctl ca rotate --gateway"
			err = a.undo(c, store, err, now, stay, sealedAuthority, sealedTokens, sealedGateway)
		}
		return err
	}
	next := "systemctl enable --now rtask-remote.socket"
	if !now.GetSealed() {
		next = "rtaskctl ca issue NAME"
	}
	return a.result(c, authorityOf(r.GetAuthority()), authorityText(r.GetAuthority(), store)+"Next: "+next+"\n")
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

// newKey makes a key of ECDSA over P-256, PKCS #8 in PEM, and a certificate signing request for it.
func newKey() (key, csr []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	request, err := contexts.Request(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), []byte(request), nil
}

// sealing is a secret, and the name of the credential that it becomes.
type sealing struct {
	credential string
	secret     []byte
}

// seal seals secrets for a command, such as "rtaskctl ca init", by the names of their files: all of them or none. Until unlock no other
// command seals, moves or removes any.
func (a *app) seal(ctx context.Context, command string, store credentials.Store, all map[string]sealing) (unlock func(), err error) {
	if a.env.UID != 0 {
		return nil, &hintError{errors.New("only root can seal keys for systemd"), "sudo " + command}
	}
	unlock, err = store.Lock()
	if errors.Is(err, credentials.ErrBusy) {
		return nil, errors.New("another rtaskctl ca init or rtaskctl ca rotate is running")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", store.Folder, err)
	}
	if err := sealAll(ctx, store, all); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// sealAll is seal with the lock of the store.
func sealAll(ctx context.Context, store credentials.Store, all map[string]sealing) error {
	for file := range all {
		if err := store.Missing(file); err != nil {
			hint := "if it is of an authority that is gone, move it away"
			switch file {
			case sealedGatewayNext:
				hint = "an earlier rotation ended half-way: rm " + store.Path(file)
			case sealedNext:
				hint = "an earlier rotation ended half-way: " + halfRotated(store)
			}
			return &hintError{fmt.Errorf("cannot make the key %w", err), hint}
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

// halfRotated says what to do with the next key of the authority after a rotation that may have ended half-way.
func halfRotated(store credentials.Store) string {
	return fmt.Sprintf("mv %s %s if rtaskctl ca list shows the new authority, else remove it", store.Path(sealedNext), store.Path(sealedAuthority))
}

func (a *app) caRotate(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	gateway, distrust := c.Bool("gateway"), c.Bool("distrust-old")
	if gateway && distrust {
		return misuse(c, "--gateway and --distrust-old exclude each other")
	}
	now, err := callAuthority(a, c, authority.Show, &rtaskv1.ShowRequest{})
	if err != nil {
		return err
	}
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	store := credentials.Store{Folder: a.credstore, TPM: c.Bool("tpm")}
	request := &rtaskv1.RotateRequest{AuthorityKey: key, Distrust: distrust}
	command, credential, next, place, stay := c.Command.HelpName, "ca.key", sealedNext, sealedAuthority, halfRotated(store)
	if gateway {
		request = &rtaskv1.RotateRequest{GatewayCsr: csr}
		command, credential, next, place = command+" --gateway", "remote.key", sealedGatewayNext, sealedGateway
		stay = "rm " + store.Path(next) + ", then rtaskctl ca rotate --gateway again"
	}
	seals := now.GetExists() && now.GetSealed()
	if seals {
		unlock, err := a.seal(c.Context, command, store, map[string]sealing{next: {credential, key}})
		if err != nil {
			return err
		}
		defer unlock()
	}
	r, err := callAuthority(a, c, authority.Rotate, request)
	switch {
	case err != nil && seals:
		return a.undo(c, store, err, now, stay, next)
	case err != nil:
		return err
	case seals:
		if err := store.Move(next, place); err != nil {
			return &hintError{fmt.Errorf("there is a new key, but it could not be put in its place: %w", err), "mv " + store.Path(next) + " " + store.Path(place)}
		}
	}
	text := authorityText(r.GetAuthority(), store) + "What the old key has signed stays good until it ends.\n"
	switch {
	case gateway:
		text = "The gateway has a new key; the authority and its clients keep theirs.\nNext: systemctl restart rtask-gateway.service; until then no client can connect\n"
	case distrust:
		text = authorityText(r.GetAuthority(), store) + "What the old key has signed is good for nothing now: everybody logs in again.\n"
	}
	return a.result(c, authorityOf(r.GetAuthority()), text)
}

// undo removes sealed keys after the call that brought them has failed with err, which it returns. They stay, with a hint about that, where
// they may be those of the engine's authority: where only the reply is missing, and where the authority that the engine shows is not the one
// from before.
func (a *app) undo(c *cli.Context, store credentials.Store, err error, before *rtaskv1.ShowResponse, stay string, files ...string) error {
	if !client.Answered(err) {
		return &hintError{err, stay}
	}
	now, failed := callAuthority(a, c, authority.Show, &rtaskv1.ShowRequest{})
	if failed != nil || now.GetExists() != before.GetExists() || now.GetFingerprint() != before.GetFingerprint() {
		return &hintError{err, stay}
	}
	for _, file := range files {
		err = errors.Join(err, store.Remove(file))
	}
	return err
}

// authorityText says what an authority is.
func authorityText(r *rtaskv1.ShowResponse, store credentials.Store) string {
	keys := store.Folder + " (host key of this machine)"
	switch {
	case !r.GetSealed():
		keys = printable(r.GetStateFolder()) + " (only the engine's user can read them)"
	case store.TPM:
		keys = store.Folder + " (host key and TPM2 chip of this machine)"
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
