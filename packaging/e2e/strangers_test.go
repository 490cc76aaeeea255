package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	// strangersAtOnce is how many strangers there are at a time.
	strangersAtOnce = 32
	// strangerTime is how long one may take.
	strangerTime = time.Minute
	// strangerMemory is how much more memory the daemons may have afterwards, in bytes: ten thousand strangers may not leave 4 KiB each.
	strangerMemory = 32 << 20
	// strangersVariable begins the names of the variables that strangers gives TestStrangers.
	strangersVariable = "RTASK_STRANGERS_"
)

// strangers N ADDRESS DIR has N clients that nobody knows begin handshakes at a port for remote clients, 32 at a time: of four, two have no
// certificate, one has one of its own making, and one speaks no TLS. Each must be told why it is refused, and be counted. Meanwhile a client
// whose certificate is in DIR, with key and authority, calls with a token, on a connection of its own each time, and each call must
// succeed. Afterwards the daemons hold what they held before.
func strangers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: strangers N ADDRESS DIR")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	known := newKnown(ts, args[1], ts.MkAbs(args[2]))
	for range 20 {
		ts.Check(known.call())
	}
	before, want, held := median(known.took), refusals(ts), holds(ts)
	ts.Logf("before: a call takes %v; %v", before, held)

	self, err := os.Executable()
	ts.Check(err)
	var out bytes.Buffer
	crowd := exec.Command("nice", "-n", "19", self, "-test.run", "^TestStrangers$", "-test.timeout", "0")
	crowd.Dir, crowd.Stdout, crowd.Stderr = "/", &out, &out
	crowd.Env = []string{"PATH=" + os.Getenv("PATH"), strangersVariable + "N=" + args[0], strangersVariable + "ADDRESS=" + args[1]}
	ts.Check(crowd.Start())
	gone := make(chan struct{})
	go func() { defer close(gone); err = crowd.Wait() }()
	defer func() { _ = crowd.Process.Kill(); <-gone }() // an error means that it has ended
	known.took = nil
	for over := false; !over; {
		ts.Check(known.call())
		select {
		case <-gone:
			over = true
		default:
		}
	}
	if err != nil {
		ts.Fatalf("strangers: %v, %s", err, out.String())
	}
	during := median(known.took)
	ts.Logf("meanwhile: %d calls, %v each, %.1f times as long; %v", len(known.took), during, float64(during)/float64(before), holds(ts))

	for kind, more := range map[string]int{"certificate-missing": n - n/4 - (n+1)/4, "certificate-unknown": n / 4, "tls": (n + 1) / 4} {
		want[kind] += more
	}
	settle(ts, held, strangerMemory, func() error {
		if counts := refusals(ts); !maps.Equal(counts, want) {
			return fmt.Errorf("refused are %v, and there should be %v", counts, want)
		}
		return nil
	})
}

// refusals are how many handshakes and calls of remote clients were refused, by kind.
func refusals(ts *testscript.TestScript) map[string]int {
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^rtask_remote_refused_total\{kind="([^"]+)"\} (\d+)$`).FindAllSubmatch(metrics(ts), -1) {
		count, err := strconv.Atoi(string(m[2]))
		ts.Check(err)
		all[string(m[1])] = count
	}
	return all
}

// known is a client that is to be served.
type known struct {
	client    *http.Client
	at, token string
	took      []time.Duration
}

func newKnown(ts *testscript.TestScript, address, dir string) *known {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	ts.Check(err)
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	k := &known{at: "https://" + address, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
	}}}
	res, err := k.client.PostForm(k.at+"/token", url.Values{"grant_type": {"client_credentials"}})
	ts.Check(err)
	defer res.Body.Close()
	var reply struct {
		AccessToken string `json:"access_token"`
	}
	ts.Check(json.NewDecoder(res.Body).Decode(&reply))
	k.token = reply.AccessToken
	return k
}

// call connects and makes one call.
func (k *known) call() error {
	began := time.Now()
	r, err := http.NewRequest("POST", k.at+"/rtask.v1.JobService/Tasks", strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+k.token)
	r.Header.Set("Content-Type", "application/json")
	res, err := k.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if reply, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
		return fmt.Errorf("the known client is not served: %s, %.200s, %v", res.Status, reply, err)
	}
	k.took = append(k.took, time.Since(began))
	return nil
}

// TestStrangers is the process that strangers starts. In others it is no test.
func TestStrangers(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(strangersVariable + "N"))
	if err != nil {
		return
	}
	address := os.Getenv(strangersVariable + "ADDRESS")
	own := selfSigned(t)
	var next atomic.Int64
	var all sync.WaitGroup
	for range strangersAtOnce {
		all.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := stranger(i, address, own); err != nil {
					t.Errorf("stranger %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// stranger is the handshake of one stranger. Its error is nil if it was refused as it should be.
func stranger(i int, address string, own tls.Certificate) error {
	c, err := net.DialTimeout("tcp", address, strangerTime)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(strangerTime)); err != nil {
		return err
	}
	if i%4 == 3 {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // it may be cut off at the first byte
		if reply, err := io.ReadAll(c); len(reply) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("without TLS: %q, %v", reply, err)
		}
		return nil
	}
	config, want := &tls.Config{InsecureSkipVerify: true}, "certificate required" // whoever answers
	if i%4 == 0 {
		config.GetClientCertificate, want = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }, "unknown certificate authority"
	}
	secure := tls.Client(c, config)
	if err = secure.Handshake(); err == nil { // in TLS 1.3 the client's side is done before the server has looked at its certificate
		_, err = secure.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("the handshake ends with %v, and not with %q", err, want)
	}
	return nil
}

// selfSigned is a certificate that its owner made.
func selfSigned(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
