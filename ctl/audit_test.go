package ctl

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/ctl/journal"
)

func TestAuditRow(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	for _, c := range []struct{ fields, want string }{
		{"RTASK_DECISION=refused RTASK_ACTION=start RTASK_KIND=signature RTASK_TASK=build RTASK_WEBHOOK=github RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON=a\nb",
			"refused start build webhook:github 192.0.2.7  signature: a b"},
		{"RTASK_DECISION=accepted RTASK_ACTION=start RTASK_TASK=build RTASK_KEY=ci RTASK_KEY_ID=x RTASK_REMOTE_ADDR=::1 RTASK_JOB_ID=j",
			"accepted start build key:ci ::1 j "},
		{"RTASK_DECISION=accepted RTASK_ACTION=stop RTASK_COMMAND=sh RTASK_USER=ada RTASK_JOB_ID=j", "accepted stop sh ada local j "},
		{"RTASK_DECISION=ignored RTASK_WEBHOOK=w RTASK_USER=ada RTASK_REASON=no", "ignored   webhook:w local  no"},
		{"RTASK_DECISION=refused RTASK_ACTION=stop RTASK_KIND=role RTASK_SUBJECT=spiffe://example.org/user/alice RTASK_SERIAL=3f:a1 RTASK_ROLE=viewer RTASK_REMOTE_ADDR=192.0.2.7 RTASK_REASON=no",
			"refused stop  spiffe://example.org/user/alice 192.0.2.7  role: no"},
		{"RTASK_DECISION=refused RTASK_KIND=unauthorized RTASK_REMOTE_ADDR=1.2.3.4", "refused    1.2.3.4  unauthorized"},
		{
			"RTASK_DECISION=refused RTASK_KIND=unauthorized RTASK_REMOTE_ADDR=1.2.3.4 RTASK_COUNT=39970",
			"refused    1.2.3.4  unauthorized (39970 more like this in the minute before)",
		},
	} {
		e := journal.Entry{Time: at, Fields: map[string]string{}}
		for _, kv := range strings.Split(c.fields, " ") {
			name, value, _ := strings.Cut(kv, "=")
			e.Fields[name] = value
		}
		v := auditOf(e)
		want := append([]string{"2026-01-02 03:04:05"}, strings.SplitN(c.want, " ", 7)...)
		if got := v.row(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A line for -f ends where its text does, and acts on no terminal.
	_, rowLine := (&app{}).auditLine()
	if line := rowLine([]string{"t", "d", "", "\x1b[31m", "", "", "", "x"}); !strings.HasSuffix(line, "  x\n") || strings.Contains(line, "\x1b") {
		t.Errorf("%q", line)
	}
}
