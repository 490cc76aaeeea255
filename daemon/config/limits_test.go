package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// inLimitsBlock decodes a task with one line of limits { … }.
func inLimitsBlock(line string) (*Task, Diagnostics) {
	return one("task \"t\" {\ncommand = [\"true\"]\nlimits {\n" + line + "\n}\n}\n")
}

func TestLimitsTaken(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	i := func(v int) *int { return &v }
	rlimit := func(resource string, soft, hard uint64) spec.Limits {
		return spec.Limits{RLimits: []spec.RLimit{{Resource: resource, Soft: soft, Hard: hard}}}
	}
	disk := func(device string, value uint64) []spec.DeviceLimit {
		return []spec.DeviceLimit{{Device: device, Value: value}}
	}
	const infinity = uint64(spec.Infinity)
	for line, want := range map[string]spec.Limits{
		`memory_high = "384M"`:                               {MemoryHigh: n(384 << 20)},
		`memory_high = "infinity"`:                           {MemoryHigh: n(infinity)},
		`memory_swap_max = 0`:                                {MemorySwapMax: n(0)},
		`memory_swap_max = "1G"`:                             {MemorySwapMax: n(1 << 30)},
		`memory_swap_max = "infinity"`:                       {MemorySwapMax: n(infinity)},
		`cpu_weight = 300`:                                   {CPUWeight: n(300)},
		`cpu_weight = "1"`:                                   {CPUWeight: n(1)},
		`cpu_weight = "idle"`:                                {CPUWeight: n(spec.CPUIdle)},
		`io_weight = 10000`:                                  {IOWeight: n(10000)},
		`allowed_cpus = "0-2,4"`:                             {AllowedCPUs: spec.CPUSet{0x17}},
		`allowed_cpus = 1`:                                   {AllowedCPUs: spec.CPUSet{2}},
		`io_read_bandwidth_max = "/dev/sda 10M"`:             {IOReadBandwidthMax: disk("/dev/sda", 10_000_000)},
		`io_write_bandwidth_max = ["/dev/sda   1"]`:          {IOWriteBandwidthMax: disk("/dev/sda", 1)},
		`io_read_iops_max = "\"/a b\" 1.5K"`:                 {IOReadIOPSMax: disk("/a b", 1500)},
		`io_write_iops_max = "/a b infinity"`:                {IOWriteIOPSMax: disk("/a b", infinity)},
		`io_write_iops_max = ["/dev/a 1", "/dev//b/. 2"]`:    {IOWriteIOPSMax: append(disk("/dev/a", 1), disk("/dev/b", 2)...)},
		`io_write_iops_max = []`:                             {},
		`slice = "rtask.slice"`:                              {Slice: "rtask.slice"},
		`slice = "rtask-batch-night.slice"`:                  {Slice: "rtask-batch-night.slice"},
		`nice = -20`:                                         {Nice: i(-20)},
		`nice = "19"`:                                        {Nice: i(19)},
		`nice = 0`:                                           {Nice: i(0)},
		`oom_score_adjust = -900`:                            {OOMScoreAdjust: i(-900)},
		`oom_score_adjust = 1000`:                            {OOMScoreAdjust: i(1000)},
		`limit_nofile = "1024:4096"`:                         rlimit("nofile", 1024, 4096),
		`limit_nofile = "1024:infinity"`:                     rlimit("nofile", 1024, infinity),
		`limit_nofile = 17`:                                  rlimit("nofile", 17, 17),
		`limit_core = 0`:                                     rlimit("core", 0, 0),
		`limit_core = "infinity"`:                            rlimit("core", infinity, infinity),
		`limit_fsize = "1K:1M"`:                              rlimit("fsize", 1<<10, 1<<20),
		`limit_cpu = "1h 30min"`:                             rlimit("cpu", 5400, 5400),
		`limit_cpu = "1500ms:1min"`:                          rlimit("cpu", 2, 60),
		`limit_rttime = "200ms"`:                             rlimit("rttime", 200_000, 200_000),
		`limit_rttime = 5`:                                   rlimit("rttime", 5, 5),
		`limit_nice = "-5"`:                                  rlimit("nice", 25, 25),
		`limit_nice = "+19"`:                                 rlimit("nice", 1, 1),
		`limit_nice = 40`:                                    rlimit("nice", 40, 40),
		"limit_as = \"4G\"\nlimit_nproc = 5\nlimit_as = 1":   {}, // twice in one block; see below
		"limit_stack = \"8M\"\nlimit_data = \"1T:infinity\"": {RLimits: []spec.RLimit{{Resource: "data", Soft: 1 << 40, Hard: infinity}, {Resource: "stack", Soft: 8 << 20, Hard: 8 << 20}}},
	} {
		task, diags := inLimitsBlock(line)
		if strings.Count(line, "limit_as") > 1 {
			if !diags.HasErrors() {
				t.Errorf("%s: taken", line)
			}
			continue
		}
		if len(diags) != 0 {
			t.Errorf("%s:\n%v", line, diags)
		} else if !reflect.DeepEqual(task.Limits, want) {
			t.Errorf("%s: got %+v, want %+v", line, task.Limits, want)
		}
	}
}

func TestLimitsRefused(t *testing.T) {
	for _, c := range []struct {
		line   string
		column int
		want   string
	}{
		{`memory_high = 0`, 15, "nothing can run without memory"},
		{`memory_swap_max = -1`, 19, "negative"},
		{`cpu_weight = 0`, 14, `is not one of 1 to 10000, nor "idle"`},
		{`cpu_weight = 10001`, 14, "is not one of 1 to 10000"},
		{`cpu_weight = "Idle"`, 14, "is not one of 1 to 10000"},
		{`cpu_weight = true`, 14, "cpu_weight must be a weight, not true or false"},
		{`io_weight = "idle"`, 13, "is not one of 1 to 10000"},
		{`io_weight = 1.5`, 13, "is not one of 1 to 10000"},
		{`allowed_cpus = ""`, 16, "it is empty"},
		{`allowed_cpus = "2-1"`, 16, "the end of \"2-1\" is before its beginning"},
		{`allowed_cpus = "all"`, 16, "neither the number of a processor"},
		{`allowed_cpus = [0]`, 16, "not a list"},
		{`io_read_bandwidth_max = "10M"`, 25, "there must be two"},
		{`io_read_bandwidth_max = "/dev/sda"`, 25, "there must be two"},
		{`io_read_bandwidth_max = "sda 10M"`, 25, `the path "sda" is not absolute`},
		{`io_read_bandwidth_max = "/dev/../sda 10M"`, 25, `has ".." in it`},
		{`io_read_bandwidth_max = "/dev/sda 10X"`, 25, "to the base of 1000"},
		{`io_read_bandwidth_max = "/dev/sda 0"`, 25, "nothing can be read or written"},
		{`io_read_bandwidth_max = "/dev/sda -1"`, 25, "negative"},
		{`io_read_bandwidth_max = 5`, 25, "must be a string, not a number"},
		{`io_write_iops_max = ["/dev/sda 1", "/dev//sda 2"]`, 36, "io_write_iops_max names /dev/sda a second time"},
		{`io_write_iops_max = ["/dev/sda 1", "x"]`, 36, "io_write_iops_max[1] is not a device and a number"},
		{`slice = "system.slice"`, 9, "neither rtask.slice nor below it"},
		{`slice = "rtask"`, 9, "neither rtask.slice nor below it"},
		{`slice = "rtask-x.scope"`, 9, "neither rtask.slice nor below it"},
		{`slice = "rtaskx.slice"`, 9, "neither rtask.slice nor below it"},
		{`slice = "rtask-.slice"`, 9, "cannot be the name of a slice"},
		{`slice = "rtask-a--b.slice"`, 9, "cannot be the name of a slice"},
		{`slice = "rtask-../x.slice"`, 9, "cannot be the name of a slice"},
		{`slice = "rtask-` + strings.Repeat("a", 250) + `.slice"`, 9, "cannot be the name of a slice"},
		{`nice = 20`, 8, "nice must be from -20 to 19, not 20"},
		{`nice = -21`, 8, "from -20 to 19"},
		{`nice = "low"`, 8, "must be a whole number"},
		{`oom_score_adjust = 1001`, 20, "from -1000 to 1000"},
		{`oom_score_adjust = -901`, 20, "protect the job better than its supervisor"},
		{`oom_score_adjust = -1000`, 20, "could not be ended at memory_max"},
		{`limit_nofile = "2:1"`, 16, "is above the hard one"},
		{`limit_nofile = "infinity:1"`, 16, "is above the hard one"},
		{`limit_nofile = "1:2:3"`, 16, "is no whole number"},
		{`limit_nofile = "1K"`, 16, "is no whole number"},
		{`limit_nofile = ":"`, 16, "is no whole number"},
		{`limit_core = "1X"`, 14, "is no suffix"},
		{`limit_core = "50%"`, 14, "percentage"},
		{`limit_cpu = "soon"`, 13, "does not begin with a number"},
		{`limit_nice = "-21"`, 14, "is none of these"},
		{`limit_nice = "+20"`, 14, "is none of these"},
		{`limit_nice = 41`, 14, "is none of these"},
		{`limit_rtprio = -1`, 16, "is no whole number"},
		{`limit_nofiles = 1`, 1, `Did you mean "limit_nofile"?`},
		{`CPUWeight = 1`, 1, `Did you mean "cpu_weight"?`},
	} {
		_, diags := inLimitsBlock(c.line)
		if len(diags) != 1 || diags[0].Severity != SeverityError || diags[0].Line != 4 || diags[0].Column != c.column || !strings.Contains(diags.Error(), c.want) {
			t.Errorf("%s: want column %d and %q:\n%v", c.line, c.column, c.want, diags)
		}
	}
}

// TestDefaultLimits: a task's limits take the place of those of defaults one by one, and of no other task's.
func TestDefaultLimits(t *testing.T) {
	cfg, diags := build([]*source{
		{name: "rtask.hcl", root: true, data: []byte("defaults {\nlimits {\nnice = 5\nlimit_core = 0\nlimit_nofile = 10\nio_read_iops_max = \"/dev/a 1\"\n}\n}\n")},
		{name: "t.hcl", data: []byte("task \"x\" {\ncommand=[\"a\"]\nlimits {\nlimit_nofile = 20\nio_read_iops_max = \"/dev/b 2\"\n}\n}\n" +
			"task \"y\" {\ncommand=[\"a\"]\nlimits {\nlimit_core = 1\nnice = 6\n}\n}\ntask \"z\" {\ncommand=[\"a\"]\n}\n")},
	}, Options{})
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	for name, want := range map[string]string{
		"x": "5 [{core 0 0} {nofile 20 20}] [{/dev/b 2}]", "y": "6 [{core 1 1} {nofile 10 10}] [{/dev/a 1}]",
		"z": "5 [{core 0 0} {nofile 10 10}] [{/dev/a 1}]",
	} {
		l := cfg.Tasks[name].Limits
		if got := fmt.Sprint(*l.Nice, l.RLimits, l.IOReadIOPSMax); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestProperties(t *testing.T) {
	list := func(pairs ...string) (all []Property) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, Property{pairs[i], pairs[i+1]})
		}
		return all
	}
	p := Properties{TimeoutStop: 10 * time.Second, KillSignal: 15}
	err := p.Parse(list("memory_max", "64M", "MemoryMax", "32M", "LimitNOFILE", "5:6", "nice", "7", "RuntimeMaxSec", "5min", "kill_signal", "HUP",
		"IOReadIOPSMax", "/dev/a 1", "io_read_iops_max", "/dev/b 2", "CPUWeight", "idle"))
	if err != nil {
		t.Fatal(err)
	}
	l := p.Limits
	if *l.MemoryMax != 32<<20 || *l.Nice != 7 || p.Timeout != 5*time.Minute || p.TimeoutStop != 10*time.Second || p.KillSignal != 1 ||
		fmt.Sprint(l.RLimits, l.IOReadIOPSMax) != "[{nofile 5 6}] [{/dev/a 1} {/dev/b 2}]" || *l.CPUWeight != spec.CPUIdle {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct{ name, value, want string }{
		{"memory_max", "50%", "memory_max is not a size: a percentage is not taken here. Write for example: memory_max=512M"},
		{"MemoryMax", "x", `memory_max is not a size: "x" does not begin with a number. Write for example: memory_max=512M`},
		{"memory_max", "", `memory_max is not a size: "" does not begin with a number. Write for example: memory_max=512M`},
		{"nice", "20", "nice must be from -20 to 19, not 20. Write for example: nice=10"},
		{"memory_mux", "1G", `there is no property "memory_mux"; did you mean "memory_max"?`},
		{"x", "1G", `there is no property "x"; there are allowed_cpus, ambient_capabilities, `},
		{"command", "x", `there is no property "command"; there are `},
		{"user", "root", `there is no property "user"; there are `},
		{"environment", "A=1", `there is no property "environment"; there are `},
		{"a\x1b[0m", "x", "there is no property \"a\ufffd[0m\""},
		{"slice", "system.slice", `slice "system.slice" is neither rtask.slice nor below it. A job in another slice would not be under the limits of all jobs. Write "rtask.slice" or "rtask-NAME.slice"`},
		{"allowed_cpus", "${x}", `allowed_cpus is not a list of processors: "${x}" is neither the number of a processor nor a range of two. Write for example: allowed_cpus=0-2,4`},
		{"allowed_cpus", strings.Repeat("0-8191,", 600), `the property "allowed_cpus" is longer than 4096 bytes`},
		{"timeout_stop_sec", "infinity", "timeout_stop_sec is not a duration: it must end. Write for example: timeout_stop_sec=10s"},
	} {
		before := Properties{KillSignal: 3}
		got := before
		if err := got.Parse(list("nice", "1", c.name, c.value)); c.name != "nice" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) || !reflect.DeepEqual(got, before) {
			t.Errorf("%s=%s: %v, and %+v; want %s", c.name, c.value, err, got, c.want)
		}
		if err := got.Parse(list(c.name, c.value)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %s", c.name, c.value, err, c.want)
		}
	}
}

// FuzzProperties gives strangers' text to each parser of limits. Nothing may panic or hang, an error says something, and
// what is taken is within what the rest of the engine relies on.
func FuzzProperties(f *testing.F) {
	names := []string{"timeout", "timeout_stop_sec", "kill_signal", "nonsense"}
	var examples []string
	for _, a := range limitsScope().attributes {
		names, examples = append(names, a.name), append(examples, a.example)
	}
	for _, a := range sandboxScope().attributes {
		names, examples = append(names, a.name), append(examples, a.example)
	}
	for i, example := range examples {
		f.Add(uint8(i+4), strings.Trim(example, `["]`))
	}
	for _, s := range []string{"infinity", "1:2", "/dev/a b 1K", "1e9", "", "-", "rtask-\x00.slice", "99999999999999999999999"} {
		for i := range names {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		var p Properties
		err := p.Parse([]Property{{Name: names[int(which)%len(names)], Value: text}})
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		l := p.Limits
		within := func(v *uint64, least, most uint64) bool { return v == nil || *v >= least && *v <= most }
		if p.Timeout < 0 || p.TimeoutStop < 0 || p.KillSignal < 0 || p.KillSignal > 64 || !within(l.CPUWeight, 0, 10000) ||
			!within(l.IOWeight, 1, 10000) || l.Nice != nil && (*l.Nice < -20 || *l.Nice > 19) ||
			l.OOMScoreAdjust != nil && (*l.OOMScoreAdjust < spec.LeastOOMScore || *l.OOMScoreAdjust > 1000) ||
			l.Slice != "" && l.Slice != "rtask.slice" && !strings.HasPrefix(l.Slice, "rtask-") || strings.ContainsAny(l.Slice, "/\x00 ") {
			t.Fatalf("%q: %+v", text, p)
		}
		for _, r := range l.RLimits {
			if r.Soft > r.Hard {
				t.Fatalf("%q: %+v", text, r)
			}
		}
		for _, d := range p.Sandbox.Sources("/") {
			if d[0] != '/' || strings.ContainsRune(d, 0) || strings.Contains(d+"/", "/../") {
				t.Fatalf("%q: %q", text, d)
			}
		}
		for _, d := range l.Devices() {
			if d[0] != '/' || strings.ContainsRune(d, 0) || strings.Contains(d+"/", "/../") {
				t.Fatalf("%q: %q", text, d)
			}
		}
	})
}
