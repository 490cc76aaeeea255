package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// Every row of the table for a remote client with each role: what no role gives is refused, and what is for others is not there.
func TestEveryProcedureForEveryRole(t *testing.T) {
	r := newRemote(t)
	r.Options.Reload = func(bool) (*config.Config, config.Diagnostics) { return nil, nil }
	const jobs = "/rtask.v1.JobService/"
	read := []string{"Status", "StreamLogs", "List", "Wait", "Tasks", "ShowTask", "Info"}
	may := map[string][]string{
		"nobody": {}, "viewer": read, "op": append([]string{"Start", "Stop"}, read...), "starter": {"Start"},
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

// What a role does not show does not exist: tasks, jobs by id, by its beginning, by process, in lists, in counts.
func TestRolesHide(t *testing.T) {
	r := newRemote(t)
	op, other, viewer := r.jobs(r.enrol("op")), r.jobs(r.enrol("op-2")), r.jobs(r.enrol("viewer"))
	mine := must[rtaskv1.StartResponse](t)(op.Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
	if mine.Owner != "spiffe://example.org/user/op" || mine.Trigger != "remote" {
		t.Errorf("owner %s, trigger %s", mine.Owner, mine.Trigger)
	}
	hidden := must[rtaskv1.StartResponse](t)(r.as(self()).Start(t.Context(), &rtaskv1.StartRequest{Name: "hidden"})).Job
	mine = must[rtaskv1.StatusResponse](t)(op.Status(t.Context(), &rtaskv1.StatusRequest{Job: mine.Id})).Job
	hidden = must[rtaskv1.StatusResponse](t)(r.as(self()).Status(t.Context(), &rtaskv1.StatusRequest{Job: hidden.Id})).Job
	for _, ref := range []string{hidden.Id, hidden.Id[:6], pid(hidden), "aaaaaaaaaaaaaaaa", "build", "hidden"} {
		for name, c := range map[string]interface {
			Status(context.Context, *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error)
		}{"its own": op, "all": viewer} {
			before := len(r.decisions())
			_, err := c.Status(t.Context(), &rtaskv1.StatusRequest{Job: ref})
			if codes(t, err, connect.CodeNotFound); ref != "build" && !strings.HasPrefix(told(err), "no such job") {
				t.Errorf("%s, %q: %v", name, ref, err)
			}
			if e := r.decisions()[before:]; len(e) != 1 || !strings.Contains(e[0], "refused RTASK_ACTION=read RTASK_KIND=not-found ") || !strings.Contains(e[0], "RTASK_SUBJECT=spiffe://example.org/user/") {
				t.Errorf("written down is %q", e)
			}
		}
	}
	for name, ref := range map[string]string{"id": mine.Id, "beginning": mine.Id[:6], "pid": pid(mine)} {
		_, err := other.Status(t.Context(), &rtaskv1.StatusRequest{Job: ref})
		codes(t, err, connect.CodeNotFound)
		_, err = other.Stop(t.Context(), &rtaskv1.StopRequest{Job: ref})
		codes(t, err, connect.CodeNotFound)
		if _, err := viewer.Status(t.Context(), &rtaskv1.StatusRequest{Job: ref}); err != nil {
			t.Errorf("by %s for one that sees all: %v", name, err)
		}
	}
	_, err := viewer.Stop(t.Context(), &rtaskv1.StopRequest{Job: mine.Id})
	if codes(t, err, connect.CodePermissionDenied); detail(err).GetKind() != "role" || told(err) != "your roles (viewer) do not allow Stop" {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		list interface {
			List(context.Context, *rtaskv1.ListRequest) (*rtaskv1.ListResponse, error)
			Tasks(context.Context, *rtaskv1.TasksRequest) (*rtaskv1.TasksResponse, error)
			Info(context.Context, *rtaskv1.InfoRequest) (*rtaskv1.InfoResponse, error)
		}
		jobs, tasks int
	}{"op": {op, 1, 2}, "op-2": {other, 0, 2}, "viewer": {viewer, 1, 1}} {
		l := must[rtaskv1.ListResponse](t)(c.list.List(t.Context(), &rtaskv1.ListRequest{All: true}))
		n := must[rtaskv1.TasksResponse](t)(c.list.Tasks(t.Context(), &rtaskv1.TasksRequest{}))
		i := must[rtaskv1.InfoResponse](t)(c.list.Info(t.Context(), &rtaskv1.InfoRequest{}))
		if len(l.Jobs) != c.jobs || len(n.Tasks) != c.tasks || int(i.Running) != c.jobs || len(i.Diagnostics)+len(i.Sockets) != 0 {
			t.Errorf("%s: %d jobs, %d tasks, %v", name, len(l.Jobs), len(n.Tasks), i)
		}
	}
	// By its name, with parameters, as a command: a task that the role has not is like one that does not exist.
	var texts []string
	for _, request := range []*rtaskv1.StartRequest{{Name: "hidden"}, {Name: "nothing"}, {Name: "ls", Path: "/bin/ls", WorkingDirectory: "/"}} {
		_, err := op.Start(t.Context(), request)
		codes(t, err, connect.CodeNotFound)
		texts = append(texts, strings.ReplaceAll(told(err), request.Name, "X"))
	}
	if len(slices.Compact(texts)) != 1 {
		t.Errorf("they are told %q", texts)
	}
	for _, name := range []string{"hidden", "ls"} {
		_, err := op.Start(t.Context(), &rtaskv1.StartRequest{Name: name, Command: true, Path: "/bin/ls", WorkingDirectory: "/"})
		if codes(t, err, connect.CodePermissionDenied); detail(err).GetKind() != "role" {
			t.Error(err)
		}
	}
	_, err = op.ShowTask(t.Context(), &rtaskv1.ShowTaskRequest{Task: "hidden"})
	codes(t, err, connect.CodeNotFound)
	// What the end of a job has started is not told of either.
	failed := must[rtaskv1.StartResponse](t)(op.Start(t.Context(), &rtaskv1.StartRequest{Name: "deploy-a"})).Job
	if j := must[rtaskv1.WaitResponse](t)(op.Wait(t.Context(), &rtaskv1.WaitRequest{Job: failed.Id})).Job; len(j.Triggered) != 0 || *j.ExitCode != 3 {
		t.Errorf("%v", j)
	}
	must[rtaskv1.StopResponse](t)(op.Stop(t.Context(), &rtaskv1.StopRequest{Job: mine.Id, Kill: true}))
}

func pid(j *rtaskv1.Job) string { return fmt.Sprint(j.Pid) }

func told(err error) string {
	var e *connect.Error
	if errors.As(err, &e) {
		return e.Message()
	}
	return ""
}

// Roles are those of the token that the configuration in force gives, and what an administrator gave at the enrolment.
func TestRolesOfTokens(t *testing.T) {
	r := newRemote(t)
	c := r.enrol("op")
	c.token = r.tokenFor(c.leaf, func(c *token.Claims) { c.Roles = []string{"viewer", "admin"} })
	_, err := r.jobs(c).Tasks(t.Context(), &rtaskv1.TasksRequest{})
	if codes(t, err, connect.CodePermissionDenied); told(err) != "you have no role, so you may not use Tasks" {
		t.Error(err)
	}
	// A role that the configuration gives since then needs another token, and the client is told so.
	r.root += "role \"more\" {\nsubjects = [\"spiffe://example.org/user/viewer\"]\ntasks = [\"hidden\"]\nmethods = [\"run\"]\n}\n"
	viewer := r.enrol("viewer")
	viewer.token = r.tokenFor(viewer.leaf, func(c *token.Claims) { c.IssuedAt = time.Now().Add(-time.Minute) })
	r.configure(remoteTasks)
	_, err = r.jobs(viewer).Start(t.Context(), &rtaskv1.StartRequest{Name: "hidden"})
	if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "token-expired" {
		t.Error(err)
	}
	viewer.token = r.tokenFor(viewer.leaf, nil)
	must[rtaskv1.StartResponse](t)(r.jobs(viewer).Start(t.Context(), &rtaskv1.StartRequest{Name: "hidden"}))
	given := r.granted(authority.Grant{Kind: authority.Machine, Name: "ci-1", Roles: []string{"operator", "nothing"}})
	m := must[rtaskv1.WhoAmIResponse](t)(r.jobs(given).WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{}))
	if len(m.Roles) != 1 || m.Roles[0].Name != "operator" || !m.Machine || m.Identity != "spiffe://example.org/machine/ci-1" || m.Kind != "remote" || m.User != "" {
		t.Errorf("%v", m)
	}
	if m.CertificateSerial == "" || m.Url != remoteURL || m.TokenExpiresAt == nil || m.CertificateExpiresAt == nil || !slices.Contains(m.Methods, "Start") || slices.Contains(m.Methods, "AddKey") {
		t.Errorf("%v", m)
	}
}

// A remote command runs as the role's user, from that user's home, found in the usual PATH, and never as root.
func TestRemoteCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start jobs as another user")
	}
	r := newRemote(t)
	user, err := job.LookupUser("daemon")
	if err != nil {
		t.Skip(err)
	}
	c := r.jobs(r.enrol("shell"))
	run := func(request *rtaskv1.StartRequest) (string, *rtaskv1.Job) {
		t.Helper()
		j := must[rtaskv1.StartResponse](t)(c.Start(t.Context(), request)).Job
		must[rtaskv1.WaitResponse](t)(c.Wait(t.Context(), &rtaskv1.WaitRequest{Job: j.Id}))
		stream, err := c.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id})
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for {
			m, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				return string(all), j
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m.Data...)
		}
	}
	out, j := run(&rtaskv1.StartRequest{
		Name: "sh", Command: true, Path: "/tmp/evil/sh", SearchPath: "/tmp/evil", WorkingDirectory: "/root",
		Arguments: []string{"-c", "id -un; pwd; echo $PATH; echo $X; echo $0"}, Environment: map[string]string{"X": "y"},
	})
	if want := "daemon\n" + user.Home + "\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ny\nsh\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if j.User != "daemon" || j.Owner != "spiffe://example.org/user/shell" || j.Trigger != "remote" {
		t.Errorf("%v", j)
	}
	if out, _ := run(&rtaskv1.StartRequest{Name: "/usr/bin/id", Arguments: []string{"-u"}}); out != fmt.Sprintln(user.UID) {
		t.Errorf("by its path: %q", out)
	}
	_, err = c.Start(t.Context(), &rtaskv1.StartRequest{Name: "no-such-command-here", Command: true, Path: "/bin/sh"})
	codes(t, err, connect.CodeNotFound)
	_, err = c.Start(t.Context(), &rtaskv1.StartRequest{Name: "build"}) // a task of others is no command
	codes(t, err, connect.CodeNotFound)
	_, err = c.Start(t.Context(), &rtaskv1.StartRequest{Name: "true", Command: true, Properties: []*rtaskv1.Property{{Name: "nice", Value: "-5"}}})
	if codes(t, err, connect.CodePermissionDenied); detail(err).GetKind() != "property" {
		t.Error(err)
	}
	// Duplicates are those of one client.
	sleep := &rtaskv1.StartRequest{Name: "sleep", Arguments: []string{"1000"}, Command: true}
	first := must[rtaskv1.StartResponse](t)(c.Start(t.Context(), sleep)).Job
	_, err = c.Start(t.Context(), sleep)
	if codes(t, err, connect.CodeAlreadyExists); detail(err).GetJobId() != first.Id {
		t.Error(err)
	}
	other := r.jobs(r.enrol("shell-2"))
	must[rtaskv1.StartResponse](t)(other.Start(t.Context(), sleep))
	if l := must[rtaskv1.ListResponse](t)(other.List(t.Context(), &rtaskv1.ListRequest{})); len(l.Jobs) != 1 {
		t.Errorf("it sees %d commands", len(l.Jobs))
	}
	for runAs, why := range map[string]string{"nobody-here": "there is no user", "gateway": "gateway's"} {
		cfg := *r.Snapshot().Config
		role := *cfg.Roles[4]
		role.RunAs = runAs
		if runAs == "gateway" {
			role.RunAs, r.GatewayUID = "daemon", &user.UID
		}
		if _, err := r.runAs(&role); detail(err).GetKind() != "role" || !strings.Contains(told(err), why) {
			t.Errorf("%s: %v", runAs, err)
		}
	}
	for _, runAs := range []string{"", "root", "0"} { // the configuration takes none of them; another name for root it cannot always know
		if _, err := r.runAs(&config.Role{Name: "x", RunAs: runAs}); detail(err).GetKind() != "role" {
			t.Errorf("%q: %v", runAs, err)
		}
	}
}

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

// A stream and a wait end with the token, with the certificate, when that is revoked, and when a reload takes the role away.
func TestRemoteCallsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*remote, *remoteClient)
		life time.Duration // of the token; 0: an hour
		code connect.Code
		kind string
	}{
		"token":       {func(*remote, *remoteClient) {}, 3 * time.Second, connect.CodeUnauthenticated, "token-expired"},
		"certificate": {func(r *remote, _ *remoteClient) { revoke(r, "user/op") }, 0, connect.CodeUnauthenticated, "certificate"},
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
			client := r.enrol("op")
			j := must[rtaskv1.StartResponse](t)(r.jobs(client).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
			if c.life > 0 {
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
			c.end(r, client)
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
