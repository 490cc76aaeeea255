package gateway

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/api/codec"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/packaging/testkit"
)

// A gateway and an engine between them: an authority is made while both run, a client without anything gets a certificate with a join
// token, is let in by it as far as the engine, and is not any more once it was revoked.
func TestRemoteWithEngine(t *testing.T) {
	f := newFixture(t)
	key := ecKey(t)
	at := f.serve(Options{
		RemoteAddress: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), CredentialsDir: remoteCredentials(t, pemOf(t, key), nil),
	}, nil)["remote"]
	if _, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true}); err == nil || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("without an authority: %v", err)
	}
	people := client.Dial(filepath.Join(f.dir, "run", "rtask.sock"))
	defer people.Close()
	authority := people.Authority
	if _, err := authority.Init(t.Context(), &rtaskv1.InitRequest{
		Name: "example.org", AuthorityKey: pemOf(t, ecKey(t)), TokenKey: make([]byte, 32), GatewayCsr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: requestDER(t, key)}), GatewayKey: pemOf(t, key),
	}); err != nil {
		t.Fatal(err)
	}
	exported, err := authority.Export(t.Context(), &rtaskv1.ExportRequest{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(exported.Certificates) {
		t.Fatalf("%s", exported.Certificates)
	}
	join, err := authority.Issue(t.Context(), &rtaskv1.IssueRequest{Identity: &rtaskv1.Identity{Name: "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	mine := ecKey(t)
	body, err := json.Marshal(map[string]string{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: requestDER(t, mine)})), "join_token": join.JoinToken})
	if err != nil {
		t.Fatal(err)
	}
	enroll := func() (*http.Response, string) {
		t.Helper()
		return sendTLS(t, at, &tls.Config{RootCAs: roots, NextProtos: []string{"rtask-enroll/1"}}, post("/enroll", string(body)))
	}
	res, text := enroll()
	var got struct{ Certificate, Identity string }
	if err := json.Unmarshal([]byte(text), &got); err != nil || res.StatusCode != 200 || got.Identity != "spiffe://example.org/user/alice" {
		t.Fatalf("%d %+v, %v", res.StatusCode, got, err)
	}
	certificate := tls.Certificate{PrivateKey: mine}
	for block, rest := pem.Decode([]byte(got.Certificate)); block != nil; block, rest = pem.Decode(rest) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	if res, text := enroll(); res.StatusCode != 409 || !strings.Contains(text, "join-used") {
		t.Errorf("the same join token: %d %s", res.StatusCode, text)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(true)
	defer transport.CloseIdleConnections()
	jobs := rtaskv1connect.NewJobServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "https://"+at, append(codec.Options(), connecthttp.WithGRPC())...)))
	_, err = jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
	if d, _ := client.Detail(err); connect.CodeOf(err) != connect.CodeUnauthenticated || d.GetKind() != "token-missing" {
		t.Errorf("without a token: %v with %v", err, d)
	}
	if _, err := authority.Revoke(t.Context(), &rtaskv1.RevokeRequest{Certificate: "alice"}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the certificate is not let in", func() bool {
		transport.CloseIdleConnections()
		_, err := jobs.Info(t.Context(), &rtaskv1.InfoRequest{})
		return err != nil && strings.Contains(err.Error(), "bad certificate")
	})
	// The engine knows of that, and counts it.
	testkit.Eventually(t, "the refusal is counted", func() bool {
		families, err := engineMetrics(f.inner.engine)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families {
			if m.GetName() == "rtask_remote_refused_total" {
				for _, one := range m.Metric {
					if one.Label[0].GetValue() == "certificate-revoked" && one.Counter.GetValue() >= 1 {
						return true
					}
				}
			}
		}
		return false
	})
}

// requestDER is a certificate signing request (RFC 2986).
func requestDER(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
