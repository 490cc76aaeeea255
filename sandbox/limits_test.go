package sandbox

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/privilege"
	"github.com/rtask/rtask/sandbox/scope"
	"github.com/rtask/rtask/sandbox/spec"
)

// TestResources: the scope has room for the shim, and no maxima of IO.
func TestResources(t *testing.T) {
	memory, quota, weight, infinity := uint64(64<<20), uint64(500_000), uint64(7), uint64(spec.Infinity)
	r := resources(spec.Limits{
		MemoryMax: &memory, MemoryHigh: &memory, MemorySwapMax: new(uint64), CPUQuota: &quota, CPUWeight: &weight, IOWeight: &weight,
		TasksMax: &infinity, AllowedCPUs: spec.CPUSet{1}, IOReadBandwidthMax: []spec.DeviceLimit{{Device: "/dev/vda", Value: 1}},
	})
	for name, c := range map[string]struct {
		got  *uint64
		want uint64
	}{
		"MemoryMax": {r.MemoryMax, 96 << 20}, "MemoryHigh": {r.MemoryHigh, 96 << 20}, "MemorySwapMax": {r.MemorySwapMax, 32 << 20},
		"TasksMax": {r.TasksMax, spec.Infinity}, "CPUQuotaPerSecUSec": {r.CPUQuotaPerSecUSec, 700_000},
		"CPUWeight": {r.CPUWeight, 7}, "IOWeight": {r.IOWeight, 7},
	} {
		if c.got == nil || *c.got != c.want {
			t.Errorf("%s is %v, want %d", name, c.got, c.want)
		}
	}
	if string(r.AllowedCPUs) != "\x01" {
		t.Errorf("AllowedCPUs is %v", r.AllowedCPUs)
	}
	none := resources(spec.Limits{})
	if none.MemoryMax != nil || none.CPUWeight != nil || none.AllowedCPUs != nil {
		t.Errorf("of nothing comes %+v", none)
	}
}

func TestUnitSlice(t *testing.T) {
	for in, want := range map[string]string{"": "rtask.slice", "rtask-batch.slice": "rtask-batch.slice"} {
		if got := unit("x.scope", &spec.Run{Limits: spec.Limits{Slice: in}}, false).Slice; got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}

// TestCheck: a machine that has every controller, and does not have what is asked for.
func TestCheck(t *testing.T) {
	h := &Host{manager: scope.System(), controllers: []string{"cpu", "cpuset", "io", "memory", "pids"}}
	n := func(v int) *int { return &v }
	rlimit := func(r spec.RLimit) (l spec.Limits) {
		l.SetRLimit(r)
		return l
	}
	var far spec.CPUSet
	far.Add(8000)
	lowestScore := "the lowest oom_score_adjust that rtaskd may give is "
	if os.Geteuid() != 0 {
		lowestScore = "only root can set an OOM score"
	}
	refused := map[string]spec.Limits{
		"/dev/nowhere":              {IOReadBandwidthMax: []spec.DeviceLimit{{Device: "/dev/nowhere", Value: 1}}},
		"/proc/version":             {IOWriteIOPSMax: []spec.DeviceLimit{{Device: "/proc/version", Value: 1}}},
		"allowed_cpus names 8000":   {AllowedCPUs: far},
		`no resource limit "newer"`: rlimit(spec.RLimit{Resource: "newer"}),
		"the highest limit_nofile":  rlimit(spec.RLimit{Resource: "nofile", Soft: 1, Hard: 1 << 50}),
	}
	taken := []spec.Limits{
		{}, {Nice: n(19)}, {AllowedCPUs: spec.CPUSet{1}}, {Slice: "rtask-x.slice"},
		rlimit(spec.RLimit{Resource: "core"}),
	}
	if os.Geteuid() == 0 {
		taken = append(taken, spec.Limits{OOMScoreAdjust: n(500)})
	} else {
		refused["only root can set an OOM score"] = spec.Limits{OOMScoreAdjust: n(500)}
	}
	for _, one := range []struct {
		capability int
		want       string
		limits     spec.Limits
	}{
		{unix.CAP_SYS_NICE, "the lowest nice value that rtaskd may give is ", spec.Limits{Nice: n(-20)}},
		{unix.CAP_SYS_RESOURCE, lowestScore, spec.Limits{OOMScoreAdjust: n(-900)}},
		{unix.CAP_SYS_RESOURCE, "the highest limit_rtprio that rtaskd may give is ", rlimit(spec.RLimit{Resource: "rtprio", Soft: 99, Hard: 99})},
		{unix.CAP_SYS_RESOURCE, "the highest limit_nofile that rtaskd may give is ", rlimit(spec.RLimit{Resource: "nofile", Soft: 1, Hard: spec.Infinity})},
	} {
		if privilege.Has(one.capability) {
			taken = append(taken, one.limits)
		} else {
			refused[one.want] = one.limits
		}
	}
	for want, l := range refused {
		if err := h.Check(l); !errors.Is(err, ErrUnenforceable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
	for _, l := range taken {
		if err := h.Check(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	few := &Host{manager: h.manager, controllers: []string{"memory"}}
	if err := few.Check(spec.Limits{AllowedCPUs: spec.CPUSet{1}}); !errors.Is(err, ErrUnenforceable) || !strings.Contains(err.Error(), "controllers cpuset") {
		t.Errorf("without cpuset: %v", err)
	}
}

// TestOwnLimitsWithoutSystemd: what the process itself has needs no control group.
func TestOwnLimitsWithoutSystemd(t *testing.T) {
	l := newLab(t)
	j := l.job("nice; ulimit -n; ulimit -c; cat /proc/self/oom_score_adj")
	nice, score := 3, 400
	want := "3\n64\n0\n400\n"
	if os.Geteuid() == 0 {
		j.Limits.OOMScoreAdjust = &score
	} else {
		own, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		want = "3\n64\n0\n" + string(own)
		if err := l.Check(spec.Limits{OOMScoreAdjust: &score}); !errors.Is(err, ErrUnenforceable) {
			t.Errorf("oom_score_adjust: %v", err)
		}
	}
	j.Limits.Nice = &nice
	j.Limits.SetRLimit(spec.RLimit{Resource: "nofile", Soft: 64, Hard: 128})
	j.Limits.SetRLimit(spec.RLimit{Resource: "core"})
	if err := l.Check(j.Limits); err != nil {
		t.Fatal(err)
	}
	if exit := l.run(j); string(exit.Stdout) != want {
		t.Errorf("%+v wrote %q", exit, exit.Stdout)
	}
	if err := l.Check(spec.Limits{Slice: "rtask-x.slice"}); !errors.Is(err, ErrUnenforceable) {
		t.Errorf("slice: %v", err)
	}
}

func TestUnlimited(t *testing.T) {
	tasks := uint64(1000)
	l := (&Host{tasksMax: &tasks}).Unlimited()
	if *l.TasksMax != 1000 || len(l.RLimits) != len(spec.Resources()) {
		t.Errorf("%+v", l)
	}
}

func TestDescription(t *testing.T) {
	r := spec.Run{ID: "aaaaaaaaaaaaaaaa", Args: []string{"/x/program", "--password=secret"}}
	if got := description(&r); got != "rtask job aaaaaaaaaaaaaaaa: program" {
		t.Errorf("%q: everybody can read arguments there", got)
	}
}
