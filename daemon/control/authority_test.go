package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/issuer"
	"github.com/rtask/rtask/daemon/job"
)

// enrolling is a fixture with an authority that can be made, and enrols clients.
func enrolling(t *testing.T) (*fixture, rtaskv1connect.AuthorityServiceClient) {
	f := newFixture(t, tasks)
	f.Secrets = Secrets{
		Folder: f.dir, Keep: func(name string, content []byte) error {
			return os.WriteFile(filepath.Join(f.dir, name), content, 0o600)
		},
		Gateway: func() ([]byte, error) { return nil, nil }, Tokens: f.Tokens.(*token.Issuer).Unlock,
	}
	f.RemoteURL = func() string { return "https://build.example.org:8843" }
	logins, err := provider.Open(provider.Options{Used: filepath.Join(f.dir, "used")})
	if err != nil {
		t.Fatal(err)
	}
	f.Enroller = &issuer.Enroller{Authority: f.Authority, URL: f.RemoteURL, Logins: logins}
	return f, rtaskv1connect.NewAuthorityServiceClient(dialed(f.client("control", peers()[auth.Admin])))
}

func aCSR(t *testing.T) string {
	t.Helper()
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := authority.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(csr)
}

// initialized makes the authority, as rtaskctl ca init does.
func initialized(t *testing.T, own rtaskv1connect.AuthorityServiceClient) {
	t.Helper()
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	must[rtaskv1.InitResponse](t)(own.Init(t.Context(), &rtaskv1.InitRequest{
		Name: "example.org", AuthorityKey: key, TokenKey: make([]byte, 32), GatewayCsr: []byte(aCSR(t)), GatewayKey: key,
	}))
}

// enroll makes a request of a client without a certificate, and returns the status and the answer.
func (f *fixture) enroll(path string, body any) (uint32, map[string]any) {
	f.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := f.net(nil, "").Enroll(f.t.Context(), &rtaskv1.EnrollRequest{Path: path, Body: text})
	if err != nil {
		f.t.Fatal(err)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(r.Body, &answer); err != nil || r.ContentType != "application/json" {
		f.t.Errorf("%s: %q, %v", path, r.Body, err)
	}
	return r.Status, answer
}

// TestAuthorityWithoutOne asks for everything before there is an authority.
func TestAuthorityWithoutOne(t *testing.T) {
	f, own := enrolling(t)
	if r, err := own.Show(t.Context(), &rtaskv1.ShowRequest{}); err != nil || r.Exists || r.Sealed {
		t.Errorf("%v, %v", r, err)
	}
	_, err := own.Issue(t.Context(), &rtaskv1.IssueRequest{Identity: &rtaskv1.Identity{Name: "admin1"}})
	codes(t, err, connect.CodeFailedPrecondition)
	_, err = own.Sign(t.Context(), &rtaskv1.SignRequest{Identity: &rtaskv1.Identity{Name: "admin1"}, Csr: []byte(aCSR(t))})
	codes(t, err, connect.CodeFailedPrecondition)
	_, err = own.Export(t.Context(), &rtaskv1.ExportRequest{})
	codes(t, err, connect.CodeFailedPrecondition)
	_, err = own.Renew(t.Context(), &rtaskv1.RenewRequest{Certificate: "x"})
	codes(t, err, connect.CodeNotFound)
	_, err = own.Revoke(t.Context(), &rtaskv1.RevokeRequest{Certificate: "x"})
	codes(t, err, connect.CodeNotFound)
	for path, body := range map[string]any{
		issuer.PathEnroll: map[string]string{"csr": aCSR(t), "join_token": "x"}, issuer.PathDeviceAuthorization: map[string]string{"csr": aCSR(t), "name": "a"},
	} {
		if status, answer := f.enroll(path, body); status < 400 || answer["error"] == "" {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
}

// TestAuthorityInit makes the authority with what is not good, and then, of several at a time, once.
func TestAuthorityInit(t *testing.T) {
	f, own := enrolling(t)
	key, err := authority.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for about, r := range map[string]*rtaskv1.InitRequest{
		"nothing":            {},
		"a bad name":         {Name: "a b", AuthorityKey: key, TokenKey: make([]byte, 32), GatewayCsr: []byte(aCSR(t)), GatewayKey: key},
		"a short secret":     {Name: "a", AuthorityKey: key, TokenKey: make([]byte, 31), GatewayCsr: []byte(aCSR(t)), GatewayKey: key},
		"no key of gateways": {Name: "a", AuthorityKey: key, TokenKey: make([]byte, 32), GatewayCsr: []byte(aCSR(t))},
		"no request":         {Name: "a", AuthorityKey: key, TokenKey: make([]byte, 32), GatewayKey: key},
		"no key":             {Name: "a", TokenKey: make([]byte, 32), GatewayCsr: []byte(aCSR(t)), GatewayKey: key},
	} {
		if _, err := own.Init(t.Context(), r); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", about, err)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(f.dir, "*.key")); err != nil || len(kept) != 0 {
		t.Errorf("keys were kept: %v", kept)
	}
	results := make(chan error, 4)
	for range cap(results) {
		go func() {
			key, err := authority.NewKey()
			if err == nil {
				_, err = own.Init(context.Background(), &rtaskv1.InitRequest{AuthorityKey: key, TokenKey: make([]byte, 32), GatewayCsr: []byte(aCSR(t)), GatewayKey: key})
			}
			results <- err
		}()
	}
	good := 0
	for range cap(results) {
		if err := <-results; err == nil {
			good++
		} else if connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Error(err)
		}
	}
	if good != 1 {
		t.Errorf("%d authorities were made", good)
	}
	kept, err := os.ReadFile(filepath.Join(f.dir, CredentialAuthority))
	if err != nil || f.Authority.Unlock(kept) != nil {
		t.Errorf("the key that is kept is another one: %v", err)
	}
	host, _ := os.Hostname()
	if r, err := own.Show(t.Context(), &rtaskv1.ShowRequest{}); err != nil || !r.Exists || !r.Unlocked || r.Name != strings.ToLower(host) || r.StateFolder != f.dir || r.ServerExpiresAt != nil {
		t.Errorf("%v, %v", r, err)
	}
}

// TestEnrollments enrols clients over the gateway: those who may, and those who may not.
func TestEnrollments(t *testing.T) {
	f, own := enrolling(t)
	initialized(t, own)
	if status, answer := f.enroll(issuer.PathCA, nil); status != 200 || answer["name"] != "example.org" || len(answer["certificates"].([]any)) != 1 || !strings.HasPrefix(answer["url"].(string), "https://") {
		t.Errorf("%d %v", status, answer)
	}
	token := must[rtaskv1.IssueResponse](t)(own.Issue(t.Context(), &rtaskv1.IssueRequest{Identity: &rtaskv1.Identity{Name: "ci-1", Kind: rtaskv1.IdentityKind_IDENTITY_KIND_MACHINE}}))
	if token.Uri != "spiffe://example.org/machine/ci-1" || !strings.HasSuffix(token.Address, ":8843") {
		t.Errorf("%v", token)
	}
	type m = map[string]string
	for _, c := range []struct {
		about, path string
		body        any
		status      uint32
		kind        string
	}{
		{"a request that is none", issuer.PathEnroll, m{"csr": "x", "join_token": token.JoinToken}, 400, "bad-request"},
		{"two proofs", issuer.PathEnroll, m{"csr": aCSR(t), "join_token": token.JoinToken, "provider": "corp", "id_token": "x"}, 400, "bad-request"},
		{"no proof", issuer.PathEnroll, m{"csr": aCSR(t)}, 400, "bad-request"},
		{"another token", issuer.PathEnroll, m{"csr": aCSR(t), "join_token": "rtj1_x"}, 401, "join-unknown"},
		{"no such provider", issuer.PathEnroll, m{"csr": aCSR(t), "provider": "corp", "id_token": "x"}, 401, "provider-token"},
		{"good", issuer.PathEnroll, m{"csr": aCSR(t), "join_token": token.JoinToken}, 200, ""},
		{"again", issuer.PathEnroll, m{"csr": aCSR(t), "join_token": token.JoinToken}, 409, "join-used"},
		{"not JSON", issuer.PathEnroll, []string{}, 400, "bad-request"},
		{"not a JWS", issuer.PathRenew, m{"jws": "x"}, 400, "bad-request"},
		{"nowhere", "/token", m{}, 404, "not-found"},
	} {
		status, answer := f.enroll(c.path, c.body)
		if status != c.status || c.kind != "" && answer["error"] != c.kind {
			t.Errorf("%s: %d %v", c.about, status, answer)
		}
		if c.kind == "" && (answer["identity"] != "spiffe://example.org/machine/ci-1" || len(answer["authorities"].([]any)) != 1 || answer["expires_at"] == "") {
			t.Errorf("%s: %v", c.about, answer)
		}
	}
	serial := must[rtaskv1.ListCertificatesResponse](t)(own.List(t.Context(), &rtaskv1.ListCertificatesRequest{})).Certificates[0].Serial
	var got []string
	for _, d := range f.decisions() {
		got = append(got, strings.ReplaceAll(d, serial, "SERIAL"))
	}
	for _, want := range []string{
		`accepted RTASK_ACTION=enroll RTASK_SUBJECT=spiffe://example.org/machine/ci-1 RTASK_SERIAL=SERIAL RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON=join`,
		`refused RTASK_ACTION=enroll RTASK_KIND=join-unknown RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="join: this is not a join token of this authority"`,
		`refused RTASK_ACTION=enroll RTASK_KIND=provider-token RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="provider: there is no provider \"corp\" here"`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("there is no entry\n%s\namong\n%s", want, strings.Join(got, "\n"))
		}
	}
	if all := f.logs.String(); strings.Contains(all, token.JoinToken[5:]) || strings.Contains(all, "PRIVATE") {
		t.Error("a secret is in the log")
	}
}

// TestDevices approves and denies devices over the API.
func TestDevices(t *testing.T) {
	f, own := enrolling(t)
	initialized(t, own)
	ask := func() (user, device string) {
		t.Helper()
		status, answer := f.enroll(issuer.PathDeviceAuthorization, map[string]string{"csr": aCSR(t), "name": "admin1"})
		if status != 200 || answer["expires_in"] != 600.0 || answer["interval"] != 5.0 {
			t.Errorf("%d %v", status, answer)
		}
		return answer["user_code"].(string), answer["device_code"].(string)
	}
	poll := func(code string) (uint32, any) {
		t.Helper()
		status, answer := f.enroll(issuer.PathDeviceToken, map[string]string{"device_code": code})
		return status, answer["error"]
	}
	user, device := ask()
	if status, kind := poll(device); status != 400 || kind != "authorization_pending" {
		t.Errorf("%d %v", status, kind)
	}
	if status, kind := poll(device); status != 400 || kind != "slow_down" {
		t.Errorf("%d %v", status, kind)
	}
	waiting := must[rtaskv1.DevicesResponse](t)(own.Devices(t.Context(), &rtaskv1.DevicesRequest{})).Devices
	if len(waiting) != 1 || waiting[0].UserCode != user || waiting[0].RemoteAddr != "192.0.2.7" || waiting[0].Name != "admin1" {
		t.Errorf("%v", waiting)
	}
	_, err := own.ApproveDevice(t.Context(), &rtaskv1.ApproveDeviceRequest{UserCode: user, Identity: &rtaskv1.Identity{Roles: []string{"nothing"}}})
	codes(t, err, connect.CodeInvalidArgument)
	r := must[rtaskv1.ApproveDeviceResponse](t)(own.ApproveDevice(t.Context(), &rtaskv1.ApproveDeviceRequest{UserCode: user, CheckOnly: true}))
	if r.Uri != "spiffe://example.org/user/admin1" || len(must[rtaskv1.DevicesResponse](t)(own.Devices(t.Context(), &rtaskv1.DevicesRequest{})).Devices) != 1 {
		t.Errorf("%v", r)
	}
	must[rtaskv1.ApproveDeviceResponse](t)(own.ApproveDevice(t.Context(), &rtaskv1.ApproveDeviceRequest{UserCode: strings.ToLower(user), Fingerprint: waiting[0].Fingerprint}))
	_, err = own.ApproveDevice(t.Context(), &rtaskv1.ApproveDeviceRequest{UserCode: user})
	codes(t, err, connect.CodeNotFound)

	user, device = ask()
	must[rtaskv1.DenyDeviceResponse](t)(own.DenyDevice(t.Context(), &rtaskv1.DenyDeviceRequest{UserCode: user}))
	if status, kind := poll(device); status != 400 || kind != "access_denied" {
		t.Errorf("%d %v", status, kind)
	}
}

// TestGuesses tries codes of devices until the address has guessed too often; what is no guess is answered as before.
func TestGuesses(t *testing.T) {
	f, own := enrolling(t)
	initialized(t, own)
	_, answer := f.enroll(issuer.PathDeviceAuthorization, map[string]string{"csr": aCSR(t), "name": "admin1"})
	var last uint32
	for i := range 12 {
		last, _ = f.enroll(issuer.PathDeviceToken, map[string]string{"device_code": fmt.Sprint(i)})
	}
	if last != 429 {
		t.Errorf("the last guess was answered with %d", last)
	}
	if status, got := f.enroll(issuer.PathDeviceToken, map[string]string{"device_code": answer["device_code"].(string)}); status != 400 || got["error"] != "authorization_pending" {
		t.Errorf("%d %v", status, got)
	}
}

// TestRevokeEndsCalls revokes an identity with calls under way and a job in a queue.
func TestRevokeEndsCalls(t *testing.T) {
	f, own := enrolling(t)
	initialized(t, own)
	for range 2 {
		must[rtaskv1.CertificateResponse](t)(own.Sign(t.Context(), &rtaskv1.SignRequest{
			Identity: &rtaskv1.Identity{Name: "ci-1", Kind: rtaskv1.IdentityKind_IDENTITY_KIND_MACHINE}, Csr: []byte(aCSR(t)),
		}))
	}
	all := must[rtaskv1.ListCertificatesResponse](t)(own.List(t.Context(), &rtaskv1.ListCertificatesRequest{})).Certificates
	ended := make(chan error, len(all))
	for _, c := range all {
		ctx, cancel := context.WithCancelCause(t.Context())
		done, ok := f.waits.add(cancel, remoteCalls(c.Uri, c.Serial))
		if !ok {
			t.Fatal("no room")
		}
		go func() { <-ctx.Done(); ended <- context.Cause(ctx); done() }()
	}
	// Of another authority's certificate the serial may be the same.
	foreign, goOn := context.WithCancelCause(t.Context())
	f.waits.most = 1
	over, ok := f.waits.add(goOn, remoteCalls("CN=bob", all[0].Serial))
	if !ok {
		t.Fatal("the calls of another authority's certificate are counted with those of the own one")
	}
	defer func() {
		if foreign.Err() != nil {
			t.Error("a call of another authority's certificate has ended")
		}
		over()
	}()
	r := must[rtaskv1.RevokeResponse](t)(own.Revoke(t.Context(), &rtaskv1.RevokeRequest{Certificate: all[0].Serial}))
	if r.Streams != 1 || r.Whole || len(r.Certificates) != 1 {
		t.Errorf("one certificate: %v", r)
	}
	r = must[rtaskv1.RevokeResponse](t)(own.Revoke(t.Context(), &rtaskv1.RevokeRequest{Certificate: "ci-1"}))
	if r.Streams != 1 || !r.Whole || len(r.Certificates) != 1 || r.QueuedJobs != 0 {
		t.Errorf("the rest: %v", r)
	}
	for range all {
		if err := <-ended; !errors.Is(err, auth.ErrUnauthorized) {
			t.Error(err)
		}
	}
	if s := must[rtaskv1.ListCertificatesResponse](t)(own.List(t.Context(), &rtaskv1.ListCertificatesRequest{})).Certificates; s[0].State != "revoked" || s[0].RevokedBy != "olga" || s[1].State != "revoked" {
		t.Errorf("%v", s)
	}
	_, err := own.Renew(t.Context(), &rtaskv1.RenewRequest{Certificate: "ci-1"})
	codes(t, err, connect.CodePermissionDenied)
	if job.RemoteOwner("spiffe://example.org/machine/ci-1").Subject != r.Uri {
		t.Error("the jobs of the identity are those of another owner")
	}
}

// TestRotateGateway gives a gateway another key, whose old one is lost, and nothing else of what a rotation can bring with it.
func TestRotateGateway(t *testing.T) {
	f, own := enrolling(t)
	request := &rtaskv1.RotateRequest{GatewayCsr: []byte(aCSR(t))}
	rotate := func() error { _, err := own.Rotate(t.Context(), request); return err }
	codes(t, rotate(), connect.CodeInvalidArgument) // the engine keeps the keys
	f.Secrets.Sealed = true
	codes(t, rotate(), connect.CodeFailedPrecondition) // there is no authority
	f.Secrets.Sealed = false
	initialized(t, own)
	f.Secrets.Sealed = true
	if err := f.Authority.Configure(authority.Settings{Own: true, ServerNames: []string{"build.example.org"}}); err != nil {
		t.Fatal(err)
	}
	before := f.Authority.Trust().Server
	if err := rotate(); err != nil {
		t.Fatal(err)
	}
	r, err := authority.ParseRequest(request.GatewayCsr)
	if err != nil {
		t.Fatal(err)
	}
	after := f.Authority.Trust().Server
	if len(after) != 2 || !slices.Equal(after[0].RawSubjectPublicKeyInfo, r.Key) || !after[1].Equal(before[1]) || after[0].Equal(before[0]) {
		t.Errorf("%d certificates, not of the new key and the authority", len(after))
	}
	request.Distrust = true
	codes(t, rotate(), connect.CodeInvalidArgument)
	request.GatewayCsr = []byte("x")
	request.Distrust = false
	codes(t, rotate(), connect.CodeInvalidArgument)
}
