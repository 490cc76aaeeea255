package control

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
	"github.com/rtask/rtask/daemon/auth"
)

// decisions are the entries for auditors so far, without what they all begin with.
func (f *fixture) decisions() []string {
	var all []string
	for line := range strings.Lines(f.logs.String()) {
		if _, entry, ok := strings.Cut(strings.TrimSpace(line), " RTASK_DECISION="); ok {
			all = append(all, entry)
		}
	}
	return all
}

// A caller of whom the kernel does not say who it is is nobody, and not root, whose number is 0.
func TestAuditUnknownPeer(t *testing.T) {
	f := newFixture(t, tasks)
	w := httptest.NewRecorder()
	f.Control().ServeHTTP(w, httptest.NewRequest(http.MethodPost, rtaskv1connect.JobServiceStartProcedure, nil))
	want := `refused RTASK_ACTION=start RTASK_KIND=forbidden RTASK_REASON="Start: who calls is not known"`
	if got := f.decisions(); w.Code != http.StatusForbidden || !slices.Equal(got, []string{want}) {
		t.Errorf("%d, %q, want %q", w.Code, got, want)
	}
}

// Each start and each stop over the control socket is one entry, and so is what a caller was denied. What may be secret is in none.
func TestAuditLocal(t *testing.T) {
	f := newFixture(t, tasks+`
task "said" {
  command     = ["/bin/true"]
  environment = { TOKEN = "hunter2" }
  param "word" { pattern = "[a-z]+[0-9]" }
}`)
	op := self()
	me := f.Identify.Control(op).Name()
	is := func(what string, want string) {
		t.Helper()
		all := f.decisions()
		if len(all) == 0 || !regexp.MustCompile("^"+want+"$").MatchString(all[len(all)-1]) {
			t.Errorf("%s: %q, want %s", what, all, want)
		}
	}
	command := &rtaskv1.StartRequest{
		Name: "sh", Path: "/bin/sh", WorkingDirectory: "/", Arguments: []string{"-c", "exec sleep 1000", "hunter2"}, Input: []byte("hunter2"),
		Environment: map[string]string{"PASSWORD": "hunter2"},
	}
	j := must[rtaskv1.StartResponse](t)(f.as(op).Start(t.Context(), command)).Job
	is("a command", "accepted RTASK_ACTION=start RTASK_COMMAND=sh RTASK_USER="+me+" RTASK_JOB_ID="+j.Id)
	_, _ = f.as(op).Start(t.Context(), command)
	is("the same again", "refused RTASK_ACTION=start RTASK_KIND=conflict RTASK_COMMAND=sh RTASK_USER="+me+" RTASK_REASON=.*")
	must[rtaskv1.StopResponse](t)(f.as(op).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id, Kill: true}))
	is("its end", "accepted RTASK_ACTION=stop RTASK_COMMAND=sh RTASK_USER="+me+" RTASK_JOB_ID="+j.Id)
	word := &rtaskv1.StartRequest{Name: "said", Parameters: []*rtaskv1.Parameter{{Name: "word", Value: "hunter2"}}}
	if os.Geteuid() == 0 {
		j = must[rtaskv1.StartResponse](t)(f.as(op).Start(t.Context(), word)).Job
		is("a task", "accepted RTASK_ACTION=start RTASK_TASK=said RTASK_USER="+me+" RTASK_JOB_ID="+j.Id)
	}
	_, _ = f.as(op).Start(t.Context(), &rtaskv1.StartRequest{Name: "off"})
	is("a disabled task", "refused RTASK_ACTION=start RTASK_KIND=disabled RTASK_TASK=off RTASK_USER="+me+" RTASK_REASON=.*")
	_, _ = f.as(ada).Start(t.Context(), word)
	is("another's task", "refused RTASK_ACTION=start RTASK_KIND=forbidden RTASK_TASK=said RTASK_USER=ada RTASK_REASON=.*")
	_, _ = f.as(ada).Stop(t.Context(), &rtaskv1.StopRequest{Job: j.Id})
	is("another's job", "refused RTASK_ACTION=stop RTASK_KIND=not-found RTASK_USER=ada RTASK_REASON=.*")
	_, _ = f.as(ada).AddKey(t.Context(), &rtaskv1.AddKeyRequest{Name: "mine"})
	is("an administrator's method", `refused RTASK_KIND=forbidden RTASK_USER=ada RTASK_REASON="AddKey: user ada may not"`)
	if n := len(f.decisions()); n != 8 && os.Geteuid() == 0 {
		t.Errorf("%d entries: %q", n, f.decisions())
	}
	inside := auth.Peer{UID: 0, InSlice: true, CgroupKnown: true}
	_, _ = f.as(inside).Start(t.Context(), command)
	is("a job", `refused RTASK_ACTION=start RTASK_KIND=forbidden RTASK_USER=\w+ RTASK_REASON="Start: a job may not use rtask"`)

	// One who may nothing fills no journal, and hides nothing: what is accepted is an entry, and all of it is counted.
	before := len(f.decisions())
	for range 3 * strangerEntries {
		_, _ = f.as(peers()[auth.Nobody]).Start(t.Context(), command)
	}
	must[rtaskv1.StopResponse](t)(f.as(op).Stop(t.Context(), &rtaskv1.StopRequest{Job: must[rtaskv1.StartResponse](t)(f.as(op).Start(t.Context(), command)).Job.Id}))
	if n := len(f.decisions()) - before; n != strangerEntries+2 {
		t.Errorf("%d entries of %d strangers", n, 3*strangerEntries)
	}
	f.SumUp()
	is("their number", `refused RTASK_ACTION=start RTASK_KIND=forbidden RTASK_USER=\S+ RTASK_COUNT=60 RTASK_REASON=.*`)
	before = len(f.decisions())
	f.SumUp()
	if n := len(f.decisions()) - before; n != 0 {
		t.Errorf("it is counted again: %q", f.decisions())
	}
	if s := f.logs.String(); strings.Contains(s, "hunter2") {
		t.Errorf("a secret is in the log: %s", s)
	}
}

// What the gateway refuses by itself is an entry like any other, as long as it is of the two kinds that there are.
func TestAuditRefused(t *testing.T) {
	f := newFixture(t, tasks)
	refuse := func(key []byte, task string, m *rtaskv1.RefusedRequest) error {
		_, err := f.net(key, task).Refused(t.Context(), m)
		return err
	}
	if err := refuse(nil, strings.Repeat("x", 100), &rtaskv1.RefusedRequest{Kind: "unavailable", Reason: "too many"}); err != nil {
		t.Error(err)
	}
	demo, other := f.key("demo"), f.key("other")
	for _, key := range [][]byte{demo, nil, []byte("x"), other} {
		if err := refuse(key, "hello", &rtaskv1.RefusedRequest{Kind: "bad-request", Reason: "no body"}); err != nil {
			t.Error(err)
		}
	}
	codes(t, refuse(nil, "hello", &rtaskv1.RefusedRequest{Kind: "made-up"}), connect.CodeInvalidArgument)
	info, err := f.Keys.Verify(t.Context(), "", demo)
	if err != nil {
		t.Fatal(err)
	}
	// Without a key for it, there is no task.
	none := `refused RTASK_ACTION=start RTASK_KIND=bad-request RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="no body"`
	want := []string{
		`refused RTASK_ACTION=start RTASK_KIND=unavailable RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="too many"`,
		"refused RTASK_ACTION=start RTASK_KIND=bad-request RTASK_TASK=hello RTASK_KEY=demo RTASK_KEY_ID=" + info.ID +
			` RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="no body"`,
		none, none, none,
	}
	if got := f.decisions(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if want := []string{" unavailable", "hello bad-request", " bad-request", " bad-request", " bad-request"}; !slices.Equal(f.rejected, want) {
		t.Errorf("%q", f.rejected)
	}
}

// Handshakes that the gateway has refused are entries and counted, of one address by the kind.
func TestAuditHandshake(t *testing.T) {
	f := newFixture(t, "")
	counted := map[string]uint64{}
	f.RefusedRemote = func(kind string, n uint64) { counted[kind] += n }
	for _, m := range []*rtaskv1.RefusedRequest{
		{Kind: "certificate-missing", Reason: "there is no certificate"},
		{Kind: "certificate-missing", Reason: "there is no certificate", Count: 7},
		{Kind: "certificate-revoked", Reason: "serial 1f", Count: 1},
	} {
		if _, err := f.net(nil, "").Refused(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if want := map[string]uint64{"certificate-missing": 8, "certificate-revoked": 1}; !maps.Equal(counted, want) {
		t.Errorf("counted %v", counted)
	}
	const head = "refused RTASK_KIND=certificate-"
	want := []string{
		head + `missing RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="TLS handshake: there is no certificate"`,
		head + `missing RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="TLS handshake: there is no certificate (7 times)"`,
		head + `revoked RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON="TLS handshake: serial 1f"`,
	}
	if got := f.decisions(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if len(f.rejected) != 0 {
		t.Errorf("they count as requests to start a task: %q", f.rejected)
	}
}

// However many refusals of whatever sources there are, entries are bounded, and every one is in one of them.
func TestTallies(t *testing.T) {
	var all tallies
	entries, counted := 0, 0
	add := func(d decision, n int) (written int) {
		for range n {
			if all.add(d) {
				written++
			}
		}
		entries += written
		return written
	}
	sum := func() (written int) {
		for _, d := range all.take() {
			entries++
			written++
			counted += d.more
		}
		return written
	}
	bad := func(address string) decision {
		return decision{decision: refused, kind: "unauthorized", remote: address, stranger: true, reason: "no key"}
	}
	known := decision{decision: refused, kind: "concurrency", keyID: "k", key: "demo", remote: "192.0.2.1"}
	if n := add(bad("192.0.2.1"), 40000); n != strangerEntries {
		t.Errorf("%d entries of one address", n)
	}
	// Others are told apart, and those with a key are not held to what strangers have used.
	if n := add(bad("192.0.2.2"), 1); n != 1 {
		t.Error("another address has no entry")
	}
	if n := add(known, knownEntries+5); n != knownEntries {
		t.Errorf("%d entries of a key", n)
	}
	if n := sum(); n != 2 || counted != 40000-strangerEntries+5 {
		t.Errorf("%d entries for %d", n, counted)
	}
	if n := sum(); n != 0 {
		t.Errorf("%d entries for nothing", n)
	}
	// Anybody has as many addresses of IPv6 as it likes, and many have several.
	entries, counted = 0, 0
	total := 0
	for i := range 50000 {
		total++
		add(bad(fmt.Sprintf("2001:db8:%x::%x", i%5000, i)), 1)
	}
	if n := len(all.of); n > maxSources+1 {
		t.Errorf("%d sources are kept", n)
	}
	if n := add(known, 1); n != 1 {
		t.Error("a key has no entry behind a flood")
	}
	sum()
	if entries > allStrangers+maxSources+2 || counted != total-allStrangers {
		t.Errorf("%d entries; counted are %d of %d", entries, counted, total)
	}
}

// Auditors see all, whatever is logged.
func TestAuditWhateverLevel(t *testing.T) {
	var b strings.Builder
	s := New(Options{Logger: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelError}))})
	s.audit(decision{decision: refused, command: strings.Repeat("ä", 1000), reason: strings.Repeat("x", 1000)})
	if !strings.Contains(b.String(), "RTASK_DECISION=refused") || len(b.String()) > 1000 || strings.Contains(b.String(), "\ufffd") {
		t.Error(b.String())
	}
}
