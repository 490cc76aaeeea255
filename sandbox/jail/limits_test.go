package jail

import (
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can set an OOM score")
	}
}

func TestLimit(t *testing.T) {
	needRoot(t)
	nice, score := 5, 300
	var l spec.Limits
	l.Nice, l.OOMScoreAdjust = &nice, &score
	l.SetRLimit(spec.RLimit{Resource: "core", Soft: 0, Hard: 0})
	l.SetRLimit(spec.RLimit{Resource: "nofile", Soft: 100, Hard: 200})
	p := fork.Process{NoFile: unix.Rlimit{Cur: 1024, Max: 4096}}
	if err := limit(&p, l, false); err != nil {
		t.Fatal(err)
	}
	if *p.Nice != 5 || *p.OOMScoreAdj != "300" || p.NoFile != (unix.Rlimit{Cur: 100, Max: 200}) || len(p.RLimits) != 1 ||
		p.RLimits[0] != (fork.RLimit{Name: "limit_core", Resource: unix.RLIMIT_CORE}) {
		t.Errorf("%+v", p)
	}
}

// TestNothingToLimit: what is not said stays as the shim has it ready.
func TestNothingToLimit(t *testing.T) {
	old := "0"
	p := fork.Process{NoFile: unix.Rlimit{Cur: 1024, Max: 4096}, OOMScoreAdj: &old}
	if err := limit(&p, spec.Limits{}, false); err != nil || p.Nice != nil || p.OOMScoreAdj != &old || p.NoFile.Cur != 1024 || p.RLimits != nil {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestNeverProtected: whatever comes over the wire, a job is not kept from the kernel's OOM killer better than its shim.
func TestNeverProtected(t *testing.T) {
	needRoot(t)
	score := -1000
	var p fork.Process
	if err := limit(&p, spec.Limits{OOMScoreAdjust: &score}, false); err != nil || *p.OOMScoreAdj != "-900" {
		t.Errorf("%v, %v", *p.OOMScoreAdj, err)
	}
}

// TestNoFileHasAnEnd: of descriptors "infinity" is the most there can be, which setrlimit(2) itself does not know.
func TestNoFileHasAnEnd(t *testing.T) {
	var l spec.Limits
	l.SetRLimit(spec.RLimit{Resource: "nofile", Soft: spec.Infinity, Hard: spec.Infinity})
	var p fork.Process
	if err := limit(&p, l, false); err != nil || p.NoFile.Max == 0 || p.NoFile.Max == math.MaxUint64 || p.NoFile.Cur != p.NoFile.Max {
		t.Errorf("%+v, %v", p.NoFile, err)
	}
}

func TestUnknownResource(t *testing.T) {
	l := spec.Limits{RLimits: []spec.RLimit{{Resource: "newer"}}}
	if err := limit(&fork.Process{}, l, true); err == nil {
		t.Error("it was dropped")
	}
}
