package keystore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/rtask/rtask/ctl/keystore"
	"github.com/rtask/rtask/packaging/testkit"
)

// sshAdd runs ssh-add and returns what it says.
func sshAdd(t *testing.T, socket, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("ssh-add", args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "no identities") {
		t.Fatalf("ssh-add %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// typed answers questions with texts, one after the other.
func typed(t *testing.T, answers ...string) func(context.Context, string) ([]byte, error) {
	t.Helper()
	n := 0
	t.Cleanup(func() {
		if n != len(answers) {
			t.Errorf("%d of %d answers were asked for", n, len(answers))
		}
	})
	return func(_ context.Context, prompt string) ([]byte, error) {
		if n == len(answers) {
			t.Errorf("asked once more: %s", prompt)
			return nil, io.EOF
		}
		n++
		return []byte(answers[n-1]), nil
	}
}

// certificate makes a certificate by the key for itself.
func certificate(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// handshake shows that a key is one for the client's side of TLS 1.3.
func handshake(t *testing.T, made *keystore.New, found crypto.Signer) {
	t.Helper()
	cert := certificate(t, made.Signer)
	cert.PrivateKey = found
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate(t, k)}, ClientAuth: tls.RequireAnyClientCert})
	client := tls.Client(b, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := server.ConnectionState().PeerCertificates[0]; string(got.Raw) != string(cert.Certificate[0]) {
		t.Error("another certificate came")
	}
	_, _ = a.Close(), b.Close()
}

func makeKey(t *testing.T, s keystore.Store, place keystore.Place) *keystore.New {
	t.Helper()
	made, err := s.Make(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func find(t *testing.T, s keystore.Store, dir string, made *keystore.New, where keystore.Place) crypto.Signer {
	t.Helper()
	key, place, err := s.Find(t.Context(), dir, "build", made.Public(), time.Now().Add(time.Hour))
	if err != nil || place != where {
		t.Fatalf("found %v, %v; want it %v", place, err, where)
	}
	return key
}

// TestAgent checks a key that lives in ssh-agent only: it is on no disk, signs handshakes and messages, ends with its time, and is missed
// when the agent has lost it.
func TestAgent(t *testing.T) {
	socket, dir := testkit.SSHAgent(t), t.TempDir()
	s := keystore.Store{Socket: socket}
	made := makeKey(t, s, "")
	if _, ok := made.Public().(ed25519.PublicKey); !ok || made.Where != keystore.Agent {
		t.Errorf("a %T, %v", made.Public(), made.Where)
	}
	if out := sshAdd(t, socket, "", "-l"); !strings.Contains(out, "no identities") {
		t.Errorf("before it is kept, the agent has %s", out)
	}
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if out := sshAdd(t, socket, "", "-l"); !strings.Contains(out, "rtask build (ED25519)") {
		t.Errorf("the agent has %s", out)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) > 0 {
		t.Errorf("on the disk: %v, %v", all, err)
	}
	key := find(t, s, dir, made, keystore.Agent)
	handshake(t, made, key)
	if sig, err := key.Sign(rand.Reader, []byte("message"), crypto.Hash(0)); err != nil || !ed25519.Verify(made.Public().(ed25519.PublicKey), []byte("message"), sig) {
		t.Errorf("the signature: %v", err)
	}
	sshAdd(t, socket, "", "-D")
	if _, _, err := s.Find(t.Context(), dir, "build", made.Public(), time.Now()); !errors.Is(err, keystore.ErrGone) {
		t.Errorf("after ssh-add -D: %v", err)
	}
	if _, err := key.Sign(rand.Reader, []byte("message"), crypto.Hash(0)); !errors.Is(err, keystore.ErrGone) {
		t.Errorf("a signature after ssh-add -D: %v", err)
	}
	if err := made.Keep(dir, "build", time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the time of the key is over", func() bool {
		_, _, err := s.Find(t.Context(), dir, "build", made.Public(), time.Now())
		return errors.Is(err, keystore.ErrGone)
	})
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if where, err := s.Remove(dir, made.Public()); err != nil || where != keystore.Agent {
		t.Errorf("Remove = %v, %v", where, err)
	}
	if out := sshAdd(t, socket, "", "-l"); !strings.Contains(out, "no identities") {
		t.Errorf("after Remove the agent has %s", out)
	}
}

// TestForget checks that a key is taken out of the agent only: files of such names in the current folder are somebody's own. Nor are they
// read for a key that is in the agent.
func TestForget(t *testing.T) {
	socket, here := testkit.SSHAgent(t), t.TempDir()
	t.Chdir(here)
	for _, file := range keystore.Files() {
		if err := os.WriteFile(filepath.Join(here, file), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := keystore.Store{Socket: socket}
	made := makeKey(t, s, keystore.Agent)
	if err := made.Keep("", "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	key, err := s.InAgent(t.Context(), made.Public())
	if err != nil {
		t.Fatal(err)
	}
	handshake(t, made, key)
	s.Forget(made.Public())
	if out := sshAdd(t, socket, "", "-l"); !strings.Contains(out, "no identities") {
		t.Errorf("after Forget the agent has %s", out)
	}
	if key, err := s.InAgent(t.Context(), made.Public()); key != nil || !errors.Is(err, keystore.ErrGone) {
		t.Errorf("after Forget: %v, %v", key, err)
	}
	keystore.Store{}.Forget(made.Public()) // without an agent
	for _, file := range keystore.Files() {
		if text, err := os.ReadFile(filepath.Join(here, file)); string(text) != "mine" {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
}

// TestLockedAgent checks that a locked agent has another error than one that has lost a key, and that a person at a terminal can unlock it.
func TestLockedAgent(t *testing.T) {
	socket, dir := testkit.SSHAgent(t), t.TempDir()
	s := keystore.Store{Socket: socket}
	made := makeKey(t, s, keystore.Agent)
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	lock := func() {
		if err := agent.NewClient(dial(t, socket)).Lock([]byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	lock()
	if _, _, err := s.Find(t.Context(), dir, "build", made.Public(), time.Now()); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("a locked agent: %v", err)
	}
	if _, err := s.Make(t.Context(), keystore.Agent); !errors.Is(err, keystore.ErrLocked) {
		t.Errorf("a new key for a locked agent: %v", err)
	}
	if _, err := s.Make(t.Context(), ""); !errors.Is(err, keystore.ErrLocked) || !errors.Is(err, keystore.ErrNobody) {
		t.Errorf("a new key anywhere: %v", err)
	}
	s.Ask = typed(t, "wrong", "secret")
	find(t, s, dir, made, keystore.Agent)
	lock()
	s.Ask = typed(t, "secret")
	makeKey(t, s, keystore.Agent)
	lock()
	s.Ask = typed(t, "", "passphrase", "passphrase")
	if made := makeKey(t, s, ""); made.Where != keystore.Passphrase {
		t.Errorf("a key for a locked agent is %v", made.Where)
	}
}

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// older is an agent that takes no Ed25519 keys, as that of old desktops.
type older struct{ agent.ExtendedAgent }

func (o older) Add(k agent.AddedKey) error {
	if _, ok := k.PrivateKey.(*ed25519.PrivateKey); ok {
		return errors.New("unknown kind of key")
	}
	return o.ExtendedAgent.Add(k)
}

func TestOlderAgent(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		keys := older{agent.NewKeyring().(agent.ExtendedAgent)}
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(keys, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	s := keystore.Store{Socket: socket}
	made := makeKey(t, s, "")
	if _, ok := made.Public().(*ecdsa.PublicKey); !ok {
		t.Fatalf("a %T", made.Public())
	}
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	handshake(t, made, find(t, s, dir, made, keystore.Agent))
}

// TestAgentP256 checks that OpenSSH's agent signs with P-256 as TLS wants it.
func TestAgentP256(t *testing.T) {
	socket, dir := testkit.SSHAgent(t), t.TempDir()
	file := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	own, err := keystore.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	sshAdd(t, socket, "", file)
	made := &keystore.New{Signer: own}
	key := find(t, keystore.Store{Socket: socket}, t.TempDir(), made, keystore.Agent)
	handshake(t, made, key)
	if _, err := key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("it signed a hash as if it were a message")
	}
}

// TestPassphrase checks a key under a passphrase: it is asked for once while there is an agent, and each time without one.
func TestPassphrase(t *testing.T) {
	socket, dir := testkit.SSHAgent(t), t.TempDir()
	without := keystore.Store{Ask: typed(t, "good", "else", "good", "good"), Work: 10}
	made := makeKey(t, without, "")
	if made.Where != keystore.Passphrase {
		t.Fatalf("it is %v", made.Where)
	}
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "key.age"))
	if err != nil || !strings.HasPrefix(string(text), "age-encryption.org/v1\n-> scrypt ") || strings.Contains(string(text), "PRIVATE") {
		t.Errorf("key.age is %.40q, %v", text, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "key.age")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if _, _, err := (keystore.Store{}).Find(t.Context(), dir, "build", made.Public(), time.Now()); !errors.Is(err, keystore.ErrNobody) {
		t.Errorf("without a terminal: %v", err)
	}
	if _, _, err := (keystore.Store{Ask: typed(t, "a", "", "c")}).Find(t.Context(), dir, "build", made.Public(), time.Now()); !errors.Is(err, keystore.ErrPassphrase) {
		t.Errorf("wrong three times: %v", err)
	}
	handshake(t, made, find(t, keystore.Store{Socket: socket, Ask: typed(t, "bad", "good")}, dir, made, keystore.Passphrase))
	handshake(t, made, find(t, keystore.Store{Socket: socket}, dir, made, keystore.Passphrase)) // from the agent
	if where, err := (keystore.Store{Socket: socket}).Remove(dir, made.Public()); err != nil || where != keystore.Passphrase {
		t.Errorf("Remove = %v, %v", where, err)
	}
	if out := sshAdd(t, socket, "", "-l"); !strings.Contains(out, "no identities") {
		t.Errorf("after Remove the agent has %s", out)
	}
	if _, err := (keystore.Store{}).Make(t.Context(), ""); !errors.Is(err, keystore.ErrNobody) {
		t.Errorf("no agent and no terminal: %v", err)
	}
}

// TestPlain checks a key in a plain file, which nobody else may be able to read.
func TestPlain(t *testing.T) {
	dir := t.TempDir()
	var s keystore.Store
	made := makeKey(t, s, keystore.Plain)
	if err := made.Keep(dir, "build", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key.pem")
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	handshake(t, made, find(t, s, dir, made, keystore.Plain))
	other := makeKey(t, s, keystore.Plain)
	if _, _, err := s.Find(t.Context(), dir, "build", other.Public(), time.Now()); err == nil {
		t.Error("the key of another certificate was taken")
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Find(t.Context(), dir, "build", made.Public(), time.Now()); err == nil || !strings.Contains(err.Error(), "can be read or changed by others (mode 0640): chmod 600 it") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// TestParse checks keys of somebody's own.
func TestParse(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if got, err := keystore.Parse(append([]byte("some text\n"), text...)); err != nil || !key.PublicKey.Equal(got.Public()) {
		t.Errorf("PKCS #1: %v", err)
	}
	if _, err := keystore.Parse([]byte("x")); err == nil {
		t.Error("text was taken for a key")
	}
	locked := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	if _, err := keystore.Parse(locked); err == nil || !strings.Contains(err.Error(), "openssl pkey") {
		t.Errorf("an encrypted key: %v", err)
	}
}
