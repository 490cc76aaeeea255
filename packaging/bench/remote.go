package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

const (
	remoteURL = "https://localhost:8843"
	// certificates is where the client's are.
	certificates = "/run/bench-remote"
	// callsARound is how often each call is made in a round.
	callsARound = 20
	// remoteStreams are followed at once, on two connections, since one has at most 128 streams at a time.
	remoteStreams, remoteConnections = 200, 2
)

// measureRemote compares calls over mutual TLS with those over the Unix socket, and tells what streams cost the gateway.
func measureRemote(ctx context.Context, m *machine, rounds int) ([]row, error) {
	const section, peer = "Calls from another machine, Tasks", "the Unix socket"
	remote, err := setUpRemote(ctx)
	if err != nil {
		return nil, err
	}
	warm, err := remote.dial()
	if err != nil {
		return nil, err
	}
	dials := []func() (*client.Client, bool, error){
		func() (*client.Client, bool, error) { c, err := remote.dial(); return c, true, err },
		func() (*client.Client, bool, error) { return client.Dial(client.DefaultPath), true, nil },
		func() (*client.Client, bool, error) { return warm, false, nil },
		func() (*client.Client, bool, error) { return m.engine, false, nil },
	}
	times := make([][]float64, len(dials))
	for turn := range rounds * callsARound {
		for n := range dials {
			i := (turn + n) % len(dials)
			c, fresh, err := dials[i]()
			if err != nil {
				return nil, fmt.Errorf("cannot connect: %w", err)
			}
			begin := time.Now()
			if _, err := c.Jobs.Tasks(ctx, &rtaskv1.TasksRequest{}); err != nil {
				return nil, fmt.Errorf("cannot ask for the tasks: %w", err)
			}
			if turn > 0 { // the very first ones fetch the token, and warm up
				times[i] = append(times[i], milliseconds(time.Since(begin)))
			}
			if fresh {
				c.Close()
			}
		}
	}
	grown, err := remote.streams(ctx)
	if err != nil {
		return nil, err
	}
	return []row{
		cost(section, "connection, handshake and first call", "p50 ms", median(times[0]), median(times[1]), peer).aiming("≤ 15 ms"),
		cost(section, "on a warm connection", "p50 ms", median(times[2]), median(times[3]), peer).aiming("≥ 0.5"),
		cost(section, "on a warm connection", "p99 ms", percentile(times[2], 99), percentile(times[3], 99), peer),
		{Section: "Streams from another machine", What: fmt.Sprintf("growth of the gateway for %d", remoteStreams), Unit: "KiB", Rtask: grown, Aim: "< 24576"},
	}, nil
}

// remote is a client's certificate, and the token of the last call.
type remote struct {
	server client.Server
	cert   *tls.Certificate

	mu    sync.Mutex
	token client.Token
}

// setUpRemote makes an authority and a client with a role, as docs/remote.md says.
func setUpRemote(ctx context.Context) (*remote, error) {
	const configuration = "/etc/rtask/rtask.hcl"
	text, err := os.ReadFile(configuration)
	if err != nil {
		return nil, fmt.Errorf("cannot configure rtask: %w", err)
	}
	text = fmt.Appendf(text, `
remote {
  url = %q
}
role "bench" {
  subjects = ["spiffe://bench.example/machine/*"]
  tasks    = ["*"]
  methods  = ["run"]
  jobs     = "all"
}
`, remoteURL)
	if err := os.WriteFile(configuration, text, 0o644); err != nil {
		return nil, fmt.Errorf("cannot configure rtask: %w", err)
	}
	for _, c := range [][]string{
		{"rtaskctl", "reload"},
		{"rtaskctl", "ca", "init", "--name", "bench.example"},
		{"systemctl", "enable", "--now", "rtask-remote.socket"},
		{"rtaskctl", "ca", "issue", "--machine", "--out", certificates, "bench"},
	} {
		if err := command(ctx, c[0], c[1:]...); err != nil {
			return nil, err
		}
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(certificates, "cert.pem"), filepath.Join(certificates, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the client's certificate: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(certificates, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority: %w", err)
	}
	block, _ := pem.Decode(ca)
	if block == nil {
		return nil, fmt.Errorf("the authority is %q", ca)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority: %w", err)
	}
	return &remote{server: client.Server{URL: remoteURL, Roots: []*x509.Certificate{root}}, cert: &cert}, nil
}

// Certificate implements client.Credentials.
func (r *remote) Certificate(context.Context, *client.Endpoint) (*tls.Certificate, error) {
	return r.cert, nil
}

// Token implements client.Credentials.
func (r *remote) Token(ctx context.Context, _ *tls.Certificate, refused string, fetch func(context.Context) (client.Token, error)) (client.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token.Text != refused && r.token.Fresh(time.Now()) {
		return r.token, nil
	}
	var err error
	r.token, err = fetch(ctx)
	return r.token, err
}

func (r *remote) dial() (*client.Client, error) { return client.DialTLS(r.server, r) }

// streams returns by how much the gateway grows, in KiB, while streams are followed that have had their first data.
func (r *remote) streams(ctx context.Context) (float64, error) {
	if err := command(ctx, "systemctl", "restart", "rtask-gateway.service"); err != nil {
		return 0, err
	}
	first, err := r.dial()
	if err != nil {
		return 0, fmt.Errorf("cannot connect: %w", err)
	}
	started, err := first.Jobs.Start(ctx, &rtaskv1.StartRequest{Name: "talk"})
	if err != nil {
		return 0, fmt.Errorf("cannot start a job: %w", err)
	}
	id := started.Job.Id
	time.Sleep(settleTime)
	before, err := memoryOfUnit(ctx, "rtask-gateway.service")
	if err != nil {
		return 0, err
	}
	var following sync.WaitGroup
	defer following.Wait()
	calls, hangUp := context.WithCancel(ctx)
	defer hangUp()
	begun := make(chan error, remoteStreams)
	for range remoteConnections {
		c, err := r.dial()
		if err != nil {
			return 0, fmt.Errorf("cannot connect: %w", err)
		}
		for range remoteStreams / remoteConnections {
			following.Go(func() { follow(calls, c, id, begun) })
		}
	}
	for range remoteStreams {
		if err := <-begun; err != nil {
			return 0, fmt.Errorf("cannot follow a job: %w", err)
		}
	}
	time.Sleep(settleTime)
	after, err := memoryOfUnit(ctx, "rtask-gateway.service")
	if err != nil {
		return 0, err
	}
	if _, err := first.Jobs.Stop(ctx, &rtaskv1.StopRequest{Job: id, Kill: true}); err != nil {
		return 0, fmt.Errorf("cannot stop a job: %w", err)
	}
	return after.own() - before.own(), nil
}

// follow follows a job until it ends or ctx does. It says once on begun whether data have come.
func follow(ctx context.Context, c *client.Client, id string, begun chan<- error) {
	stream, err := c.Jobs.StreamLogs(ctx, &rtaskv1.StreamLogsRequest{Job: id, Follow: true})
	if err != nil {
		begun <- err
		return
	}
	told := false
	for m, err := range client.Messages(stream) {
		if !told && (err != nil || strings.TrimSpace(string(m.Data)) != "") {
			told = true
			begun <- err
		}
	}
}
