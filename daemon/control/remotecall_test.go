package control

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
)

// follower is a stream of logs that is under way.
func (r *remote) follower(t *testing.T, c *remoteClient, id string) (next func() error) {
	t.Helper()
	stream, err := r.jobs(c).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Receive(); err != nil || string(m.Data) != "on\n" {
		t.Fatalf("%v, %v", m, err)
	}
	return func() error {
		_, err := stream.Receive()
		return err
	}
}

// lastCertificate is the case in which the certificate ends before the token.
const lastCertificate = "end of the certificate"

// past is Certificates for which, once over is set, the clock is past the end of all.
type past struct {
	Certificates
	over atomic.Bool
}

// Verify implements Certificates.
func (p *past) Verify(leaf *x509.Certificate, chain []*x509.Certificate) (authority.Identity, error) {
	if p.over.Load() {
		return authority.Identity{}, &authority.Refusal{Kind: authority.KindExpired, Text: "the certificate has expired"}
	}
	return p.Certificates.Verify(leaf, chain)
}

// anothers is Tokens for which, once is is set, all tokens are those of another client.
type anothers struct {
	Tokens
	is atomic.Bool
}

// Verify implements Tokens.
func (a *anothers) Verify(raw []byte, leaf *x509.Certificate) (token.Claims, error) {
	c, err := a.Tokens.Verify(raw, leaf)
	if a.is.Load() {
		c.Subject = "spiffe://example.org/user/op-2"
	}
	return c, err
}

// A stream and a wait end with the token, with the certificate, when that is revoked, and when a reload takes the role away. So they do
// once their token is good for another client, whatever that one may call.
func TestRemoteCallsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*remote, *remoteClient)
		life time.Duration // of the token, or of the certificate; 0: an hour
		code connect.Code
		kind string
	}{
		"token":         {func(*remote, *remoteClient) {}, 3 * time.Second, connect.CodeUnauthenticated, "token-expired"},
		"certificate":   {func(r *remote, _ *remoteClient) { revoke(r, "user/op") }, 0, connect.CodeUnauthenticated, "certificate"},
		lastCertificate: {func(*remote, *remoteClient) {}, 3 * time.Second, connect.CodeUnauthenticated, "certificate-expired"},
		"clock": {func(r *remote, _ *remoteClient) {
			r.Certificates.(*past).over.Store(true)
			r.Recheck()
		}, 0, connect.CodeUnauthenticated, "certificate-expired"},
		"client": {func(r *remote, _ *remoteClient) {
			r.Tokens.(*anothers).is.Store(true)
			r.Recheck()
		}, 0, connect.CodeUnauthenticated, "token-invalid"},
		"role": {func(r *remote, _ *remoteClient) {
			r.root = strings.ReplaceAll(remoteRoles, "user/op", "user/nobody")
			r.configure(remoteTasks)
			r.Recheck()
		}, 0, connect.CodePermissionDenied, "role"},
		"task": {func(r *remote, _ *remoteClient) {
			r.root = strings.ReplaceAll(remoteRoles, `methods  = ["run"]`, `methods = ["Start"]`)
			r.configure(remoteTasks)
			r.Recheck()
		}, 0, connect.CodePermissionDenied, "role"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t)
			r.Certificates, r.Tokens = &past{Certificates: r.Certificates}, &anothers{Tokens: r.Tokens}
			client := r.enrol("op")
			j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
			switch {
			case name == lastCertificate:
				client = r.granted(authority.Grant{Kind: authority.User, Name: "op", Life: c.life})
			case c.life > 0:
				client.token = r.tokenFor(client.leaf, func(claims *token.Claims) { claims.Expires = time.Now().Add(c.life) })
			}
			next := r.follower(t, client, j.Id)
			waited := make(chan error, 1)
			wait := r.jobs(client)
			go func() {
				_, err := wait.Wait(context.WithoutCancel(t.Context()), &rtaskv1.WaitRequest{Job: j.Id})
				waited <- err
			}()
			for len(r.waits.checked()) != 2 {
				time.Sleep(10 * time.Millisecond)
			}
			if c.end(r, client); c.life == 0 && len(r.waits.checked()) != 0 {
				t.Fatal("calls that are not allowed any more are still under way")
			}
			for _, err := range []error{next(), <-waited} {
				if codes(t, err, c.code); detail(err).GetKind() != c.kind {
					t.Errorf("%v", err)
				}
			}
			// The job goes on, and another client that may see it does.
			if j := must[rtaskv1.StatusResponse](t)(r.as(self()).Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Id})).Job; j.State != rtaskv1.State_STATE_RUNNING {
				t.Errorf("%v", j)
			}
			if len(r.waits.checked()) != 0 {
				t.Error("calls that are over are still known")
			}
		})
	}
}

func revoke(r *remote, ref string) {
	if _, err := r.authority.Revoke(ref, "test"); err != nil {
		r.t.Error(err)
	}
	for _, gone := range r.recheck() {
		<-gone
	}
}

// What the engine lacks, such as the keys of a provider, ends no call that was let in, but does not keep a role for it either.
func TestRemoteCallsGoOn(t *testing.T) {
	for kind, lack := range map[string]func(*remote){
		"provider-keys": func(r *remote) {
			all := r.Tokens.(provider.Tokens).Providers
			all.Configure(nil)
			all.Configure([]provider.Settings{{Name: "corp", Issuer: "https://sso.example.org", Algorithms: []string{"ES256"}, Bound: true, JWKSFile: r.dir + "/gone"}})
		},
		"unavailable": func(r *remote) { r.issuer.Configure("", time.Hour) },
	} {
		t.Run(kind, func(t *testing.T) {
			r := newRemote(t)
			r.root = "provider \"corp\" {\nissuer = \"https://sso.example.org\"\nclient_id = \"c\"\nbound = true\n}\n" + remoteRoles
			r.configure(remoteTasks)
			client := r.enrol("op")
			if kind == "provider-keys" {
				client.token, r.Tokens = bound(t, client.leaf)
			}
			j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
			next := r.follower(t, client, j.Id)
			lack(r)
			_, err := r.jobs(client).Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Id})
			if detail(err).GetKind() != kind {
				t.Errorf("a call that begins then: %v", err)
			}
			if gone := r.recheck(); len(gone) != 0 || len(r.waits.checked()) != 1 {
				t.Error("a call was ended that the client can do nothing for")
			}
			r.root = strings.ReplaceAll(r.root, "user/op", "user/nobody")
			r.configure(remoteTasks)
			r.Recheck()
			err = next()
			if codes(t, err, connect.CodePermissionDenied); detail(err).GetKind() != "role" {
				t.Errorf("%v", err)
			}
		})
	}
}

// revokedInBetween revokes a certificate as soon as it was found good for the last time of left, and has calls under way decided anew.
type revokedInBetween struct {
	*remote
	left atomic.Int32
}

// Verify implements Certificates.
func (c *revokedInBetween) Verify(leaf *x509.Certificate, chain []*x509.Certificate) (authority.Identity, error) {
	id, err := c.authority.Verify(leaf, chain)
	if c.left.Add(-1) == 0 {
		if _, err := c.authority.Revoke(id.Serial, "test"); err != nil {
			c.t.Error(err)
		}
		c.recheck()
	}
	return id, err
}

// A certificate that is revoked while a call is decided for the last time ends the call: Recheck finds it by then.
func TestRemoteRevokedWhileDecided(t *testing.T) {
	r := newRemote(t)
	between := &revokedInBetween{remote: r}
	r.Certificates = between
	client := r.enrol("op")
	j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	between.left.Store(2) // for the head of a call, and for its message
	_, err := r.jobs(client).Wait(ctx, &rtaskv1.WaitRequest{Job: j.Id})
	if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "certificate" {
		t.Errorf("%v", err)
	}
	must[rtaskv1.StopResponse](t)(r.as(self()).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
}

// A client that reads nothing of what it asked for does not hold up the end of its call.
func TestRevokedReaderIsNotWaitedFor(t *testing.T) {
	r := newRemote(t)
	r.root = strings.ReplaceAll(remoteRoles, `tasks    = ["build", "deploy-*"]`, `tasks = ["*"]`)
	r.configure(remoteTasks + "task \"floods\" {\ncommand = [\"/bin/sh\", \"-c\", \"exec yes\"]\ntimeout = 0\n}\n")
	client := r.enrol("op")
	j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "floods"})).Job
	stream, err := r.jobs(client).StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // by then nothing more goes out
	over := make(chan struct{})
	go func() { defer close(over); revoke(r, "user/op") }()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Error("the call is still under way")
	}
	must[rtaskv1.StopResponse](t)(r.as(self()).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
}

// What held when the head of a call came has to hold when its message has.
func TestRemoteArrival(t *testing.T) {
	r := newRemote(t)
	for name, change := range map[string]func(){
		"certificate-revoked": func() { revoke(r, "user/op") },
		"role": func() {
			r.root = strings.ReplaceAll(remoteRoles, "user/op", "user/nobody")
			r.configure(remoteTasks)
		},
	} {
		r.root = remoteRoles
		r.configure(remoteTasks)
		client := r.enrol("op")
		body, write := io.Pipe()
		q, err := http.NewRequest("POST", "http://rtask/rtask.v1.JobService/Start", body)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		reply := make(chan string, 1)
		go func() {
			answer, err := r.over(client.peer, client.head).Do(q)
			if err != nil {
				reply <- err.Error()
				return
			}
			defer answer.Body.Close()
			b, _ := io.ReadAll(answer.Body)
			reply <- string(b)
		}()
		if _, err := io.WriteString(write, `{"name":`); err != nil {
			t.Fatal(err)
		}
		change()
		_, _ = io.WriteString(write, `"build"}`) // the answer may come first
		_ = write.Close()
		if got := <-reply; !strings.Contains(r.decisions()[len(r.decisions())-1], "RTASK_KIND="+name) || code(got) == "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	r.noJobs()
}

// A remote client has so many waits and calls at a time, of whatever connection and certificate, and others have theirs.
func TestWatchesOfRemote(t *testing.T) {
	r := newRemote(t)
	c := &call{Caller: auth.Caller{Kind: auth.Remote, Client: auth.Client{Subject: "a"}}}
	other := &call{Caller: auth.Caller{Kind: auth.Remote, Client: auth.Client{Subject: "b"}}}
	var done []func()
	for range maxWatchesOfUser {
		d, err := r.watch(c)
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, d)
	}
	_, err := r.watch(c)
	codes(t, err, connect.CodeResourceExhausted)
	if d, err := r.watch(other); err != nil {
		t.Error(err)
	} else {
		d()
	}
	for _, d := range done {
		d()
	}
	if len(r.watches.held) != 0 {
		t.Errorf("%v are still held", r.watches.held)
	}
	client := r.enrol("op")
	j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
	r.waits.most = 1
	next := r.follower(t, client, j.Id)
	_, err = r.jobs(client).Status(t.Context(), &rtaskv1.StatusRequest{Job: j.Id})
	if codes(t, err, connect.CodeResourceExhausted); detail(err).GetKind() != "concurrency" {
		t.Error(err)
	}
	r.waits.most = 3
	must[rtaskv1.StopResponse](t)(r.jobs(client).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
	if err := next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// What remote clients send counts for each of them, and for all together.
func TestMessagesOfRemote(t *testing.T) {
	r := newRemote(t)
	op, other := r.enrol("op"), r.enrol("op-2")
	text := `{"name":"nothing","input":"` + strings.Repeat("AAAA", 100) + `"}`
	r.mostOfUser = 100
	if status, reply := r.callRemote(op, "/rtask.v1.JobService/Start", text); code(reply) != "resource_exhausted" {
		t.Errorf("%d %s", status, reply)
	}
	r.mostOfUser, r.mostOfGateway = 1000, 100
	if status, reply := r.callRemote(other, "/rtask.v1.JobService/Start", text); code(reply) != "resource_exhausted" {
		t.Errorf("%d %s", status, reply)
	}
	r.mostOfGateway = 1000
	if status, reply := r.callRemote(op, "/rtask.v1.JobService/Start", text); code(reply) != "not_found" {
		t.Errorf("%d %s", status, reply)
	}
	r.nothingHeld(t)
}
