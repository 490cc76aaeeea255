package control

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

func propertyList(pairs ...string) (all []*rtaskv1.Property) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, &rtaskv1.Property{Name: pairs[i], Value: pairs[i+1]})
	}
	return all
}

// standard are limits as a freshly installed machine has them.
func standard() spec.Limits {
	tasks := uint64(4915)
	l := spec.Limits{TasksMax: &tasks}
	for name, hard := range map[string]uint64{
		"nofile": 524288, "nproc": 63000, "core": spec.Infinity, "memlock": 8 << 20, "rtprio": 0, "nice": 0, "msgqueue": 819200, "cpu": spec.Infinity,
	} {
		l.SetRLimit(spec.RLimit{Resource: name, Soft: min(hard, 1024), Hard: hard})
	}
	return l
}

// TestPropertiesRaiseNothing: what somebody who is not root must not get through a command's properties. The group of
// operators and that of administrators make no difference.
func TestPropertiesRaiseNothing(t *testing.T) {
	s := &Server{Options: Options{Unlimited: standard()}}
	root := auth.Caller{Kind: auth.Admin, Peer: auth.Peer{UID: 0}}
	for _, c := range []struct{ name, value, want string }{
		{"nice", "-1", "a nice value below 0"},
		{"Nice", "-20", "a nice value below 0"},
		{"oom_score_adjust", "-1", "an oom_score_adjust below 0"},
		{"cpu_weight", "101", "a cpu_weight above 100"},
		{"io_weight", "10000", "an io_weight above 100"},
		{"tasks_max", "4916", "a tasks_max above 4915"},
		{"tasks_max", "infinity", "a tasks_max above 4915"},
		{"slice", "rtask-vip.slice", "slice, since"},
		{"limit_nofile", "1024:524289", "a hard limit_nofile above 524288"},
		{"limit_nofile", "infinity", "a hard limit_nofile above 524288"},
		{"limit_rtprio", "0:1", "a hard limit_rtprio above 0"},
		{"limit_nice", "-1", "a hard limit_nice above 0"},
		{"LimitMEMLOCK", "infinity", "a hard limit_memlock above 8388608"},
		{"limit_msgqueue", "1M", "a hard limit_msgqueue above 819200"},
		{"limit_stack", "1K", "a hard limit_stack above 0"}, // what is not known of the engine is root's
		{"timeout_stop_sec", "91", "a timeout_stop_sec above 1m30s"},
		{"io_read_bandwidth_max", "/root/secret 1M", "a limit for /root/secret"},
		{"io_read_iops_max", "/dev/shm/x 1", "a limit for /dev/shm/x"},
		{"io_write_iops_max", "/dev/disk/by-id/x/y 1", "a limit for /dev/disk/by-id/x/y"},
		{"io_write_bandwidth_max", "/dev/disk 1", ""},
		{"bind_paths", "/root/secret:/srv", "bind_paths, which shows files"},
		{"BindReadOnlyPaths", "/root/secret:/srv", "bind_read_only_paths, which shows files"},
		{"load_credential", "key:/root/key", "load_credential, which reads files as root"},
		{"ambient_capabilities", "CAP_NET_RAW", "ambient_capabilities, which are privileges"},
		{"temporary_file_system", "/srv:size=11%", "a size of temporary_file_system above a tenth of the machine's memory"},
		{"temporary_file_system", "/srv:size=8192G", "a size of temporary_file_system"},
		{"temporary_file_system", "/srv:mode=755,nr_inodes=0", "a nr_inodes of temporary_file_system"},
		{"temporary_file_system", "/srv:size=1E", "a size of temporary_file_system"},
		{"temporary_file_system", "/srv:size=10%,nr_inodes=1k /mnt:size=1M", ""},
		{"inaccessible_paths", "/srv", ""},
		{"profile", "strict", ""},
		{"private_network", "yes", ""},
		{"no_new_privileges", "false", ""},
	} {
		for _, kind := range []auth.Kind{auth.Operator, auth.Admin} {
			_, err := s.properties(auth.Caller{Kind: kind, Peer: peers()[kind]}, propertyList("memory_max", "1M", c.name, c.value))
			if c.want == "" {
				if err != nil {
					t.Errorf("%s=%s: %v", c.name, c.value, err)
				}
				continue
			}
			codes(t, err, connect.CodePermissionDenied)
			if err == nil || !strings.Contains(err.Error(), "permission denied: only root may set "+c.want) {
				t.Errorf("%s=%s: %v, want %q", c.name, c.value, err, c.want)
			}
		}
		if _, err := s.properties(root, propertyList(c.name, c.value)); err != nil {
			t.Errorf("%s=%s for root: %v", c.name, c.value, err)
		}
	}
}

// TestPropertiesLower: everybody may limit what is his own.
func TestPropertiesLower(t *testing.T) {
	s := &Server{Options: Options{Unlimited: standard()}}
	p, err := s.properties(auth.Caller{Kind: auth.Operator, Peer: peers()[auth.Operator]}, propertyList(
		"nice", "19", "oom_score_adjust", "1000", "cpu_weight", "idle", "io_weight", "1", "tasks_max", "4915", "slice", "rtask.slice",
		"limit_nofile", "100:524288", "limit_core", "infinity", "limit_rtprio", "0", "memory_max", "infinity", "memory_high", "1M",
		"memory_swap_max", "0", "cpu_quota", "10%", "allowed_cpus", "0", "io_read_bandwidth_max", "/dev/vda 1M",
		"io_read_bandwidth_max", "/dev/mapper/root 1M", "io_read_iops_max", "/dev/disk/by-uuid/x 5",
		"timeout", "1h", "timeout_stop_sec", "90s", "kill_signal", "INT"))
	if err != nil {
		t.Fatal(err)
	}
	l := p.Limits
	if *l.Nice != 19 || *l.MemoryMax != math.MaxUint64 || len(l.IOReadBandwidthMax) != 2 || p.Timeout != time.Hour || p.KillSignal != 2 {
		t.Errorf("%+v", p)
	}
	p, err = s.properties(auth.Caller{}, nil)
	if err != nil || p.TimeoutStop != commandTimeoutStop || p.Timeout != 0 || !p.Limits.IsZero() {
		t.Errorf("of nothing comes %+v, %v", p, err)
	}
}

// TestPropertiesOfCommands goes the whole way from a request to the process; and a task takes none.
func TestPropertiesOfCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can set an OOM score")
	}
	f := newFixture(t, tasks)
	client := f.as(self())
	request := func(list ...string) *rtaskv1.StartRequest {
		return &rtaskv1.StartRequest{
			Name: "sh", Path: "/bin/sh", Arguments: []string{"-c", "nice; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj"}, WorkingDirectory: "/",
			Properties: propertyList(list...),
		}
	}
	j := must[rtaskv1.StartResponse](t)(client.Start(t.Context(), request(
		"nice", "5", "LimitNOFILE", "64:128", "oom_score_adjust", "300", "timeout", "1min", "kill_signal", "INT"))).Job
	result, err := f.Jobs.Wait(t.Context(), j.Id)
	if err != nil {
		t.Fatal(err)
	}
	if out := f.output(j.Id); out != "5\n64\n128\n300\n" {
		t.Errorf("the job wrote %q, and ended with %+v", out, result.Job.Exit)
	}
	if r := result.Job.Run; r.Timeout != time.Minute || r.KillSignal != 2 || r.TimeoutStop != commandTimeoutStop {
		t.Errorf("run as %+v", r)
	}
	for _, c := range []struct {
		r    *rtaskv1.StartRequest
		code connect.Code
		want string
	}{
		{request("nice", "20"), connect.CodeInvalidArgument, "nice must be from -20 to 19, not 20. Write for example: nice=10"},
		{request("memory_mx", "1G"), connect.CodeInvalidArgument, `did you mean "memory_max"?`},
		{request("memory_max", "64M"), connect.CodeFailedPrecondition, "there is no systemd here"},
		{&rtaskv1.StartRequest{Name: "hello", Properties: propertyList("nice", "5")}, connect.CodeInvalidArgument, `task "hello" has limits of its own, none can be set: -p is for commands`},
	} {
		_, err := client.Start(t.Context(), c.r)
		codes(t, err, c.code)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	_, err = f.as(peers()[auth.Operator]).Start(t.Context(), request("nice", "-5"))
	codes(t, err, connect.CodePermissionDenied)
	jobs, err := f.Jobs.List(job.Filter{Ended: true})
	if err != nil || len(jobs) != 1 {
		t.Errorf("%d jobs, %v, want the first one alone", len(jobs), err)
	}
}

// TestUsageMessage: what the kernel does not tell is not said to be 0.
func TestUsageMessage(t *testing.T) {
	v := func(n uint64) *uint64 { return &n }
	m := jobMessage(job.Job{Exit: &spec.Exit{Usage: spec.Usage{IOReadBytes: v(1), IOWriteBytes: v(2), IOReadOps: v(3), IOWriteOps: v(4)}}})
	if *m.IoReadBytes != 1 || *m.IoWriteBytes != 2 || *m.IoReadOps != 3 || *m.IoWriteOps != 4 {
		t.Errorf("%v", m)
	}
	if m := jobMessage(job.Job{Exit: &spec.Exit{}}); m.IoReadBytes != nil || m.IoWriteOps != nil {
		t.Errorf("%v", m)
	}
}

// TestSetuidNeedsTheMachine: somebody who is not root may have set-user-ID programs, or other files than the machine's, and not
// both.
func TestSetuidNeedsTheMachine(t *testing.T) {
	s := &Server{Options: Options{Unlimited: standard()}}
	c := auth.Caller{Kind: auth.Operator, Peer: peers()[auth.Operator]}
	for _, pairs := range [][]string{
		{"temporary_file_system", "/etc"}, {"private_tmp", "true"}, {"profile", "strict"}, {"private_users", "1"}, {"protect_home", "tmpfs"},
	} {
		_, err := s.properties(c, propertyList(append(pairs, "no_new_privileges", "no")...))
		codes(t, err, connect.CodePermissionDenied)
		if err == nil || !strings.Contains(err.Error(), "without no_new_privileges") {
			t.Errorf("%v: %v", pairs, err)
		}
	}
}
