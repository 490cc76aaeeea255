package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/go-jose/go-jose/v4"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
	"github.com/rtask/rtask/daemon/auth/token"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

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
	// The last run of a task is told to those that may list jobs, and see that one.
	last := func(c interface {
		Tasks(context.Context, *rtaskv1.TasksRequest) (*rtaskv1.TasksResponse, error)
	}, name string) string {
		t.Helper()
		all := must[rtaskv1.TasksResponse](t)(c.Tasks(t.Context(), &rtaskv1.TasksRequest{Name: name})).Tasks
		if len(all) != 1 {
			return fmt.Sprintf("%d tasks", len(all))
		}
		return all[0].GetLast().GetId()
	}
	for name, c := range map[string]struct{ got, want string }{
		"its own": {last(op, "build"), mine.Id}, "another's": {last(other, "build"), ""}, "all": {last(viewer, "build"), mine.Id},
		"one that may not list":  {last(r.jobs(r.enrol("names")), "build"), ""},
		"a user of this machine": {last(r.as(self()), "hidden"), hidden.Id}, "a hidden task": {last(op, "hidden"), "0 tasks"}, "no task": {last(op, "nothing"), "0 tasks"},
	} {
		if c.got != c.want {
			t.Errorf("the last run, %s: %q, want %q", name, c.got, c.want)
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

// A role that shows all jobs shows commands of other remote clients, if they run as its user, and no commands of local ones.
func TestRoleShowsCommands(t *testing.T) {
	all := &config.Role{Commands: true, Jobs: config.JobsAll, RunAs: "a"}
	for _, c := range []struct {
		owner, user string
		want        bool
	}{{"y", "a", true}, {"y", "b", false}, {"", "a", false}, {"x", "b", true}} {
		if got := shows(all, "x", job.Job{Spec: job.Spec{Owner: job.Owner{Subject: c.owner}}, User: c.user}); got != c.want {
			t.Errorf("owner %q, user %q: %v", c.owner, c.user, got)
		}
	}
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

// bound makes an access token of a provider, bound to a certificate (RFC 8705, RFC 9068), and the providers that take it as it is.
func bound(t *testing.T, leaf *x509.Certificate) (string, provider.Tokens) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "corp.jwks")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := provider.Open(provider.Options{Again: filepath.Join(dir, "again"), Used: filepath.Join(dir, "used"), Read: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	all.Configure([]provider.Settings{{
		Name: "corp", Issuer: "https://sso.example.org", Audience: remoteURL, GroupsClaim: "groups", Algorithms: []string{"ES256"}, JWKSFile: file,
		Session: time.Hour, Bound: true,
	}})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.Raw)
	claims, err := json.Marshal(map[string]any{
		"iss": "https://sso.example.org", "aud": remoteURL, "sub": "alice", "client_id": "c", "jti": "1", "iat": time.Now().Unix(),
		"exp": time.Now().Add(30 * time.Minute).Unix(), "cnf": map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, "groups": []string{"ops"},
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text, provider.Tokens{Own: token.New(filepath.Join(dir, "tokens")), Providers: all}
}

// The token of a provider that is taken as it is knows of no roles: its groups give them. Of rtask's own tokens only the roles in them
// count, of which this one has none, also if such a provider has the same issuer.
func TestBoundTokens(t *testing.T) {
	r := newRemote(t)
	const root = "provider \"corp\" {\nissuer = %q\nclient_id = \"c\"\nbound = true\n}\n" +
		"role \"ops\" {\ngroups = [\"corp:ops\"]\ntasks = [\"build\"]\nmethods = [\"run\"]\n}\n"
	r.root = fmt.Sprintf(root, remoteURL)
	r.configure(remoteTasks)
	c := r.enrol("nobody")
	c.token = r.tokenFor(c.leaf, func(c *token.Claims) { c.Groups, c.Roles = []string{"corp:ops"}, nil })
	theirs, tokens := bound(t, c.leaf)
	r.Tokens = provider.Tokens{Own: r.issuer, Providers: tokens.Providers}
	roles := func() int {
		m := must[rtaskv1.WhoAmIResponse](t)(r.jobs(c).WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{}))
		if m.Identity != "spiffe://example.org/user/nobody" {
			t.Errorf("%v", m)
		}
		return len(m.Roles)
	}
	if n := roles(); n != 0 {
		t.Errorf("with its own token it has %d roles", n)
	}
	c.token, r.root = theirs, fmt.Sprintf(root, "https://sso.example.org")
	r.configure(remoteTasks)
	if n := roles(); n != 1 {
		t.Errorf("with a token of its provider it has %d roles", n)
	}
	j := must[rtaskv1.StartResponse](t)(r.jobs(c).Start(t.Context(), &rtaskv1.StartRequest{Name: "build"})).Job
	if j.Owner != "corp:alice" {
		t.Errorf("%v", j)
	}
	must[rtaskv1.StopResponse](t)(r.jobs(c).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
	other := r.enrol("op")
	other.token = c.token
	_, err := r.jobs(other).WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{})
	if codes(t, err, connect.CodeUnauthenticated); detail(err).GetKind() != "token-binding" {
		t.Error(err)
	}
}

// The jobs in a queue end with the identity of the certificate that started them, whose they are by the token of a provider, too.
func TestRevokeEndsQueuedJobs(t *testing.T) {
	r := newRemote(t)
	r.root = "provider \"corp\" {\nissuer = \"https://sso.example.org\"\nclient_id = \"c\"\nbound = true\n}\n" +
		"role \"ops\" {\nsubjects = [\"spiffe://example.org/user/other\"]\ngroups = [\"corp:ops\"]\ntasks = [\"one\"]\nmethods = [\"run\"]\n}\n"
	r.configure("task \"one\" {\ncommand = [\"/bin/sleep\", \"1000\"]\ntimeout = 0\nmax_concurrent = 1\noverflow = \"queue\"\nqueue = 5\n}\n")
	other := r.enrol("other")
	exchanged := r.enrol("nobody")
	exchanged.token, r.Tokens = bound(t, exchanged.leaf)
	begin := func(c *remoteClient) *rtaskv1.Job {
		t.Helper()
		return must[rtaskv1.StartResponse](t)(r.jobs(c).Start(t.Context(), &rtaskv1.StartRequest{Name: "one"})).Job
	}
	r.Tokens = provider.Tokens{Own: r.issuer, Providers: r.Tokens.(provider.Tokens).Providers}
	runs := begin(other)
	stays, ends := begin(other), begin(exchanged)
	if ends.Owner != "corp:alice" || ends.State != rtaskv1.State_STATE_QUEUED {
		t.Errorf("%v", ends)
	}
	revoked, err := r.authority.Revoke("user/nobody", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, queued := r.endRevoked(t.Context(), revoked, "test"); queued != 1 {
		t.Errorf("%d jobs have ended", queued)
	}
	for id, want := range map[string]rtaskv1.State{
		runs.Id: rtaskv1.State_STATE_RUNNING, stays.Id: rtaskv1.State_STATE_QUEUED, ends.Id: rtaskv1.State_STATE_ENDED,
	} {
		if j := must[rtaskv1.StatusResponse](t)(r.as(self()).Status(t.Context(), &rtaskv1.StatusRequest{Job: id})).Job; j.State != want {
			t.Errorf("%v", j)
		}
	}
}

// TestGivenRoles names a role for a certificate often, and one that the configuration does not have: what is on record is bounded by the
// configuration, and nothing that was named is left out.
func TestGivenRoles(t *testing.T) {
	a := authorityService{newRemote(t).Server}
	named := &rtaskv1.Identity{Name: "ci-1"}
	for range 100 {
		named.Roles = append(named.Roles, "operator", "viewer")
	}
	if g, err := a.grantOf(named); err != nil || !slices.Equal(g.Roles, []string{"operator", "viewer"}) {
		t.Errorf("%q, %v", g.Roles, err)
	}
	named.Roles = append(named.Roles, "nothing")
	_, err := a.grantOf(named)
	codes(t, err, connect.CodeInvalidArgument)
}
