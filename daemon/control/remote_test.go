package control

import (
	"crypto/x509"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"

	healthv1 "github.com/rtask/rtask/daemon/api/grpc/health/v1"
	"github.com/rtask/rtask/daemon/api/grpc/health/v1/healthv1connect"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
)

// Every row of the table for a remote client with each role: what no role gives is refused, and what is for others is not there.
func TestEveryProcedureForEveryRole(t *testing.T) {
	r := newRemote(t)
	r.Options.Reload = func(bool) (*config.Config, config.Diagnostics) { return nil, nil }
	const jobs = "/rtask.v1.JobService/"
	read := []string{"Status", "StreamLogs", "List", "Wait", "Tasks", "ShowTask", "Info"}
	may := map[string][]string{
		"nobody": {}, "viewer": read, "op": append([]string{"Start", "Stop"}, read...), "starter": {"Start"}, "names": {"Tasks"},
		"admin": {"SwitchTask", "Drain", "Reload", "ListKeys", "RevokeKey"}, "shell": append([]string{"Start", "Stop"}, read...),
	}
	for name, methods := range may {
		c := r.enrol(name)
		for procedure := range auth.Procedures() {
			service, method := path.Split(procedure)
			want := service != jobs && !strings.HasPrefix(service, "/rtask.v1.") || method == "WhoAmI" || service == jobs && slices.Contains(methods, method)
			if strings.HasPrefix(service, "/grpc.") && streamsRemotely(procedure) {
				continue // reflection and Watch are tried by TestReflectionAndHealth
			}
			status, reply := r.callRemote(c, procedure, "{}")
			switch ours := service == jobs || strings.HasPrefix(service, "/grpc."); {
			case !ours:
				if status != http.StatusNotFound {
					t.Errorf("%s, %s: %d %s", name, procedure, status, reply)
				}
			case want != (code(reply) != "permission_denied"), !want && !strings.Contains(reply, "role"):
				t.Errorf("%s, %s: %d %s", name, procedure, status, reply)
			}
		}
		if method := jobs + "Drain"; name == "admin" {
			if status, reply := r.callRemote(c, method, `{"cancel":true}`); status != http.StatusOK {
				t.Errorf("%s: %s", method, reply)
			}
		}
	}
	// What roles can list by name, the configuration knows, and nothing else.
	var named []string
	for procedure, rule := range auth.Procedures() {
		if rule.Remote != auth.Never && rule.Remote != auth.Always {
			named = append(named, path.Base(procedure))
		}
	}
	known := config.RoleMethods()
	slices.Sort(named)
	slices.Sort(known)
	if !slices.Equal(named, known) {
		t.Errorf("roles can have %q, the configuration takes %q", named, known)
	}
	r.noJobs()
}

func streamsRemotely(procedure string) bool {
	return streams(procedure) || strings.HasSuffix(procedure, "/ServerReflectionInfo")
}

// callRemote sends a message of JSON and returns the status and the reply.
func (r *remote) callRemote(c *remoteClient, procedure, message string) (int, string) {
	r.t.Helper()
	return r.send(r.over(c.peer, c.head), procedure, message)
}

func (r *remote) send(h *http.Client, procedure, message string) (int, string) {
	r.t.Helper()
	kind := "application/json"
	if streamsRemotely(procedure) {
		kind, message = "application/connect+json", "\x00\x00\x00\x00"+string(rune(len(message)))+message
	}
	reply, err := h.Post("http://rtask"+procedure, kind, strings.NewReader(message))
	if err != nil {
		r.t.Fatal(err)
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	text := string(b)
	if i := strings.Index(text, `"error":{`); i >= 0 { // the end of a stream
		text = strings.TrimSuffix(text[i+len(`"error":`):], "}")
	}
	return reply.StatusCode, text
}

// Who is let in, and what others are told, before a byte of their message is read. None of it ends the gateway's connection, on which
// others call.
func TestRemoteDoor(t *testing.T) {
	r := newRemote(t)
	good, other := r.enrol("op"), r.enrol("op-2")
	with := func(change func(http.Header)) func(http.Header) {
		return func(h http.Header) { good.head(h); change(h) }
	}
	revoked := r.enrol("gone")
	if _, err := r.authority.Revoke("user/gone", "test"); err != nil {
		t.Fatal(err)
	}
	key := string(r.key("demo"))
	gateway := peers()[auth.Gateway]
	const say = "Authorization"
	for name, c := range map[string]struct {
		peer auth.Peer
		head func(http.Header)
		code string
		kind string
	}{
		"good":                      {gateway, good.head, "", ""},
		"a scheme in other letters": {gateway, with(func(h http.Header) { h.Set(say, "bEARER "+good.token) }), "", ""},
		"root":                      {auth.Peer{CgroupKnown: true}, good.head, "", ""},
		"another user":              {peers()[auth.Admin], good.head, "permission_denied", "forbidden"},
		"a job as root":             {auth.Peer{InSlice: true, CgroupKnown: true}, good.head, "permission_denied", "forbidden"},
		"a job as the gateway":      {auth.Peer{UID: gatewayUID, InSlice: true, CgroupKnown: true}, good.head, "permission_denied", "forbidden"},
		"no certificate":            {gateway, with(func(h http.Header) { h.Del("Client-Cert") }), "unauthenticated", "certificate-missing"},
		"two certificates":          {gateway, with(func(h http.Header) { h.Add("Client-Cert", h.Get("Client-Cert")) }), "unauthenticated", "certificate-bad"},
		"no certificate at all":     {gateway, with(func(h http.Header) { h.Set("Client-Cert", ":QQ==:") }), "unauthenticated", "certificate-bad"},
		"an authority's":            {gateway, with(func(h http.Header) { h.Set("Client-Cert", header(r.authority.Certificates()[0])) }), "unauthenticated", "certificate-unknown"},
		"revoked":                   {gateway, revoked.head, "unauthenticated", "certificate-revoked"},
		"no token":                  {gateway, with(func(h http.Header) { h.Del(say) }), "unauthenticated", "token-missing"},
		"two tokens":                {gateway, with(func(h http.Header) { h.Add(say, h.Get(say)) }), "unauthenticated", "token-invalid"},
		"another scheme":            {gateway, with(func(h http.Header) { h.Set(say, "Basic "+good.token) }), "unauthenticated", "token-invalid"},
		"another's token":           {gateway, with(func(h http.Header) { h.Set(say, "Bearer "+other.token) }), "unauthenticated", "token-binding"},
		"an API key":                {gateway, with(func(h http.Header) { h.Set(say, "Bearer "+key) }), "unauthenticated", "token-invalid"},
		"an expired token": {gateway, with(func(h http.Header) {
			h.Set(say, "Bearer "+r.tokenFor(good.leaf, func(c *token.Claims) { c.IssuedAt = time.Now().Add(-2 * time.Hour) }))
		}), "unauthenticated", "token-expired"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(r.decisions())
			h := r.over(c.peer, c.head)
			_, reply := r.send(h, "/rtask.v1.JobService/List", "{}")
			if code(reply) != c.code {
				t.Errorf("%s", reply)
			}
			entries := r.decisions()[before:]
			if c.kind == "" {
				if len(entries) != 0 {
					t.Errorf("it is written down: %q", entries)
				}
				return
			}
			if len(entries) != 1 || !strings.Contains(entries[0], "RTASK_KIND="+c.kind+" ") && c.kind != "forbidden" {
				t.Errorf("written down is %q", entries)
			}
			if c.kind != "forbidden" && r.refused(c.kind) == 0 {
				t.Errorf("it is not counted: %v", r.refusals)
			}
			if name == "an API key" && !strings.Contains(reply, "this is an API key; they are for HTTPS on 8443") {
				t.Errorf("%s", reply)
			}
			if strings.Contains(entries[0], good.token) || strings.Contains(entries[0], key) {
				t.Errorf("a secret is written down: %s", entries[0])
			}
		})
	}
	r.noJobs()
}

// header is a certificate as the gateway writes it.
func header(c *x509.Certificate) string {
	h := http.Header{}
	(&remoteClient{leaf: c}).head(h)
	return h.Get("Client-Cert")
}

// A refusal says how to ask, is the same in each protocol, and leaves the connection to the calls of others.
func TestRemoteRefusals(t *testing.T) {
	r := newRemote(t)
	good := r.enrol("op")
	bad := *good
	bad.token = ""
	mixed := func(h http.Header) {
		if good.head(h); h.Get("Test-Bad") != "" {
			h.Del("Authorization")
		}
	}
	h := r.over(good.peer, mixed)
	connections := func() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.peers) }
	if status, _ := r.send(h, "/rtask.v1.JobService/Info", "{}"); status != http.StatusOK {
		t.Fatal(status)
	}
	before := connections()
	for range 20 {
		q, err := http.NewRequest("POST", "http://rtask/rtask.v1.JobService/Info", strings.NewReader(strings.Repeat(" ", 100_000)))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set("Test-Bad", "1")
		reply, err := h.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = reply.Body.Close()
		if reply.StatusCode != http.StatusUnauthorized || reply.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Fatalf("%d %v", reply.StatusCode, reply.Header)
		}
	}
	if status, _ := r.send(h, "/rtask.v1.JobService/AddKey", "{}"); status != http.StatusForbidden {
		t.Error(status)
	}
	if status, _ := r.send(h, "/rtask.v1.JobService/Info", "{}"); status != http.StatusOK || connections() != before {
		t.Errorf("%d, and %d connections in place of %d", status, connections(), before)
	}
	bad.token = r.tokenFor(r.enrol("other").leaf, nil)
	for name, options := range map[string][]connecthttp.Option{"connect": nil, "grpc": {connecthttp.WithGRPC()}, "grpc-web": {connecthttp.WithGRPCWeb()}} {
		list := healthv1connect.NewHealthClient(r.connection(&bad, options...))
		_, err := list.Check(t.Context(), &healthv1.HealthCheckRequest{})
		if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "token-binding" {
			t.Errorf("%s: %v", name, err)
		}
	}
	q, err := http.NewRequest("GET", "http://rtask/nothing", nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := r.over(bad.peer, bad.head).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if want := `Bearer error="invalid_token", error_description="the token is bound to another certificate"`; reply.StatusCode != http.StatusUnauthorized || reply.Header.Get("WWW-Authenticate") != want {
		t.Errorf("%d %v", reply.StatusCode, reply.Header)
	}
}

// Reflection and health are for those who are let in, and tell of no service that these could not call.
func TestReflectionAndHealth(t *testing.T) {
	r := newRemote(t)
	c := r.enrol("nobody")
	stream := grpcreflect.NewClient(r.connection(c, connecthttp.WithGRPC())).NewStream(t.Context())
	defer stream.Close()
	names, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	if want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "rtask.v1.JobService"}; !slices.Equal(all, want) {
		t.Errorf("%q", all)
	}
	if _, err := stream.FileContainingSymbol("rtask.v1.JobService"); err != nil {
		t.Error(err)
	}
	health := healthv1connect.NewHealthClient(r.connection(c, connecthttp.WithGRPC()))
	check := func(service string, want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if m := must[healthv1.HealthCheckResponse](t)(health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})); m.Status != want {
			t.Errorf("%s: %v", service, m)
		}
	}
	check("", healthv1.HealthCheckResponse_SERVING)
	check("rtask.v1.JobService", healthv1.HealthCheckResponse_SERVING)
	_, err = health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "rtask.v1.GatewayService"})
	codes(t, err, connect.CodeNotFound)
	if m := must[healthv1.HealthListResponse](t)(health.List(t.Context(), &healthv1.HealthListRequest{})); len(m.Statuses) != 2 {
		t.Errorf("%v", m)
	}
	watch, err := health.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m := must[healthv1.HealthCheckResponse](t)(watch.Receive()); m.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v", m)
	}
	r.Jobs.Drain()
	r.Changed()
	if m := must[healthv1.HealthCheckResponse](t)(watch.Receive()); m.Status != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("%v", m)
	}
	r.Jobs.Accept()
	without := *c
	without.token = ""
	_, err = healthv1connect.NewHealthClient(r.connection(&without, connecthttp.WithGRPC())).Check(t.Context(), &healthv1.HealthCheckRequest{})
	codes(t, err, connect.CodeUnauthenticated)
	refused := grpcreflect.NewClient(r.connection(&without, connecthttp.WithGRPC())).NewStream(t.Context())
	defer refused.Close()
	if _, err := refused.ListServices(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Error(err)
	}
}

// The issuer's paths are for those with a good certificate, and need no token.
func TestIssuerPaths(t *testing.T) {
	r := newRemote(t)
	c := r.enrol("op")
	c.token = ""
	r.Issuer = func(w http.ResponseWriter, q *http.Request, s Shown) {
		_, _ = io.WriteString(w, q.URL.Path+" "+s.Identity.Name()+" "+s.Address+" "+s.Identity.Serial)
	}
	for _, p := range []string{"/.well-known/oauth-authorization-server", "/jwks", "/token", "/crl", "/renew", "/revoke"} {
		status, reply := r.callRemote(c, p, "")
		if status != http.StatusOK || !strings.HasPrefix(reply, p+" spiffe://example.org/user/op 192.0.2.7 ") {
			t.Errorf("%s: %d %s", p, status, reply)
		}
	}
	if status, _ := r.callRemote(c, "/token/", ""); status != http.StatusUnauthorized {
		t.Error(status)
	}
	revoke(r, "user/op")
	if status, reply := r.callRemote(c, "/token", ""); status != http.StatusUnauthorized || strings.Contains(reply, "spiffe") {
		t.Errorf("%d %s", status, reply)
	}
}

// A hostile gateway that has seen a client's certificate and token can use them until the token ends, as that client, and for nothing
// else.
func TestHostileGateway(t *testing.T) {
	r := newRemote(t)
	seen, victim := r.enrol("viewer"), r.enrol("op")
	if _, err := r.jobs(seen).List(t.Context(), &rtaskv1.ListRequest{}); err != nil {
		t.Error(err)
	}
	mixed := *victim
	mixed.token = seen.token
	_, err := r.jobs(&mixed).List(t.Context(), &rtaskv1.ListRequest{})
	if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "token-binding" {
		t.Error(err)
	}
	mixed.token = ""
	_, err = r.jobs(&mixed).List(t.Context(), &rtaskv1.ListRequest{})
	if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "token-missing" {
		t.Error(err)
	}
	for procedure, rule := range auth.Procedures() {
		if rule.Least != auth.Admin && !strings.HasPrefix(procedure, "/rtask.v1.GatewayService/") {
			continue
		}
		if status, reply := r.callRemote(seen, procedure, "{}"); status != http.StatusNotFound && code(reply) != "permission_denied" {
			t.Errorf("%s: %d %s", procedure, status, reply)
		}
	}
	// What it says of itself in the head of a call gives nothing.
	h := r.over(seen.peer, func(h http.Header) {
		seen.head(h)
		h.Set("Rtask-Key-Bin", "AAAA")
		h.Set("Rtask-Task", "hidden")
		h.Set("X-Forwarded-For", "127.0.0.1")
	})
	if status, reply := r.send(h, "/rtask.v1.JobService/Start", `{"name":"hidden"}`); code(reply) != "permission_denied" {
		t.Errorf("%d %s", status, reply)
	}
	r.noJobs()
}

// Certificates that are remembered are bounded.
func TestParsedIsBounded(t *testing.T) {
	r := newRemote(t)
	leaf := r.enrol("op").leaf
	var p parsed
	for n := range 2 * maxParsed {
		h := http.Header{}
		(&remoteClient{leaf: leaf}).head(h)
		chain := strings.Repeat(", "+h.Get("Client-Cert"), n%4)
		if chain != "" {
			h.Set("Client-Cert-Chain", strings.Repeat(" ", n)+chain[2:])
		}
		if _, _, err := p.certificates(h); err != nil {
			t.Fatal(err)
		}
		if len(p.of) > maxParsed {
			t.Fatalf("%d are remembered", len(p.of))
		}
	}
}
