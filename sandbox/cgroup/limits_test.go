package cgroup

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

func TestSettings(t *testing.T) {
	v, infinity := uint64(42), uint64(spec.Infinity)
	got := settings(spec.Limits{
		MemoryMax: &v, MemoryHigh: &infinity, MemorySwapMax: new(uint64), CPUQuota: &infinity, CPUWeight: &v, TasksMax: &v,
		AllowedCPUs: spec.CPUSet{7},
	})
	want := []setting{
		{"memory", "memory.high", "max"}, {"memory", "memory.max", "42"}, {"memory", "memory.swap.max", "0"}, {"pids", "pids.max", "42"},
		{"cpu", "cpu.max", "max 100000"}, {"cpu", "cpu.weight", "42"}, {"cpuset", "cpuset.cpus", "0-2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := settings(spec.Limits{CPUWeight: new(uint64)}), []setting{{"cpu", "cpu.idle", "1"}}; !slices.Equal(got, want) {
		t.Errorf("idle: got %v, want %v", got, want)
	}
	if got := settings(spec.Limits{}); len(got) != 0 {
		t.Errorf("nothing: got %v", got)
	}
}

func TestBFQWeight(t *testing.T) {
	for in, want := range map[uint64]uint64{1: 1, 100: 100, 5050: 550, 10_000: 1000} {
		if got := bfqWeight(in); got != want {
			t.Errorf("%d is %d, want %d", in, got, want)
		}
	}
}

func TestSumIO(t *testing.T) {
	got := sumIO("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0 rbytes=10 wbytes=20 rios=30 wios=40\n7:0\n")
	want := map[string]uint64{"rbytes": 11, "wbytes": 22, "rios": 33, "wios": 44, "dbytes": 0, "dios": 0}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestDevice goes by what /sys has of this machine's disks.
func TestDevice(t *testing.T) {
	for _, path := range []string{"/nowhere", "/dev/null", "/proc/version"} {
		if got, err := Device(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	disks, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, file := range disks {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(file)
		want := strings.TrimSpace(string(b))
		nodes := []string{filepath.Base(dir)}
		partitions, _ := filepath.Glob(dir + "/*/partition")
		for _, p := range partitions {
			nodes = append(nodes, filepath.Base(filepath.Dir(p)))
		}
		if below, _ := filepath.Glob(dir + "/slaves/*"); len(below) > 0 {
			continue // what that comes to is another disk
		}
		for _, node := range nodes {
			var st unix.Stat_t
			if unix.Stat("/dev/"+node, &st) != nil {
				continue // there may be no nodes in a container
			}
			looked++
			if got, err := Device("/dev/" + node); err != nil || got != want {
				t.Errorf("/dev/%s: %q, %v, want %q", node, got, err, want)
			}
		}
	}
	if looked == 0 {
		t.Skip("there is no disk here")
	}
}

func TestOnlineCPUs(t *testing.T) {
	got, err := OnlineCPUs()
	if err != nil || len(got) == 0 {
		t.Errorf("%v, %v", got, err)
	}
}
