package jail

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/spec"
)

// callNames are the system calls between clone and exec, and how their arguments are shown: d a number, x a number in hexadecimal,
// s a text, and so on for what lies in memory. Arguments beyond those are 0.
func callNames() map[uintptr][2]string {
	return map[uintptr][2]string{
		unix.SYS_RT_SIGPROCMASK: {"rt_sigprocmask", "dmdd"}, unix.SYS_RT_SIGACTION: {"rt_sigaction", "dadd"}, unix.SYS_SETSID: {"setsid", ""},
		unix.SYS_OPENAT: {"openat", "dsx"}, unix.SYS_WRITE: {"write", "dtd"}, unix.SYS_CLOSE: {"close", "d"}, unix.SYS_SETNS: {"setns", "dd"},
		unix.SYS_LANDLOCK_RESTRICT_SELF: {"landlock_restrict_self", "dd"}, unix.SYS_DUP3: {"dup3", "ddd"},
		unix.SYS_CLOSE_RANGE: {"close_range", "ddd"}, unix.SYS_SETPRIORITY: {"setpriority", "ddd"}, unix.SYS_PRLIMIT64: {"prlimit64", "ddld"},
		unix.SYS_SETGROUPS: {"setgroups", "dg"}, unix.SYS_SETRESGID: {"setresgid", "ddd"}, unix.SYS_SETRESUID: {"setresuid", "ddd"},
		unix.SYS_PRCTL: {"prctl", "ddd"}, unix.SYS_CAPSET: {"capset", "hc"}, unix.SYS_UMASK: {"umask", "o"}, unix.SYS_KEYCTL: {"keyctl", "ddd"},
		unix.SYS_CHDIR: {"chdir", "s"}, unix.SYS_GETCWD: {"getcwd", "bd"}, unix.SYS_SECCOMP: {"seccomp", "ddf"},
	}
}

// show writes a program as lines that can be reviewed.
func show(p *fork.Program) string {
	var b strings.Builder
	results := map[*uintptr]string{}
	for i, c := range p.Calls {
		if drops(p, i, c.Args[1].Value) && drops(p, i-1, c.Args[1].Value-1) && drops(p, i+1, c.Args[1].Value+1) {
			continue // of numbers that follow each other the first and the last will do
		}
		name := callNames()[c.Number]
		fmt.Fprintf(&b, "  %s(", name[0])
		for i, kind := range name[1] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(argument(kind, c, i, results))
		}
		b.WriteString(")")
		if c.Result != nil {
			results[c.Result] = string(rune('a' + len(results)))
			fmt.Fprintf(&b, " → %s", results[c.Result])
		}
		if c.Rooted != nil {
			b.WriteString(", which must begin with a slash")
		}
		for _, e := range c.Spared {
			if e != 0 {
				fmt.Fprintf(&b, "; %s: skip %d", unix.ErrnoName(e), c.Skip)
			}
		}
		fmt.Fprintf(&b, "  # cannot %s\n", strings.TrimSpace(string(c.Step)+" "+c.On))
	}
	return b.String()
}

// drops reports whether a call takes a capability out of the bounding set.
func drops(p *fork.Program, i int, number uintptr) bool {
	return p.Calls[i].Step == fork.BoundingSet && p.Calls[i].Args[1].Value == number
}

func argument(kind rune, c fork.Call, i int, results map[*uintptr]string) string {
	a := c.Args[i]
	if a.Result != nil {
		return results[a.Result]
	}
	switch kind {
	case 'd':
		return strconv.Itoa(int(a.Value))
	case 'x':
		return fmt.Sprintf("%#x", a.Value)
	case 'o':
		return fmt.Sprintf("%#o", a.Value)
	case 's':
		return strconv.Quote(unix.BytePtrToString((*byte)(a.At)))
	case 't':
		return strconv.Quote(string(unsafe.Slice((*byte)(a.At), c.Args[i+1].Value)))
	case 'g':
		return fmt.Sprint(unsafe.Slice((*uint32)(a.At), c.Args[i-1].Value))
	case 'l':
		return fmt.Sprintf("%+v", *(*unix.Rlimit)(a.At))
	case 'm':
		return fmt.Sprint("mask ", *(*uint64)(a.At))
	case 'a':
		return fmt.Sprint("action ", *(*[4]uintptr)(a.At))
	case 'h':
		return fmt.Sprintf("version %#x", (*unix.CapUserHeader)(a.At).Version)
	case 'c':
		return fmt.Sprintf("%+v", *(*[2]unix.CapUserData)(a.At))
	case 'b':
		return "buffer"
	case 'f':
		return fmt.Sprintf("program of %d", (*unix.SockFprog)(a.At).Len)
	default:
		return "?"
	}
}

// TestCalls compiles what typical jobs do between clone and exec. The file is for people to review: UPDATE=1 writes it anew.
func TestCalls(t *testing.T) {
	none, drop, mask, nice := uint64(0), spec.AllCapabilities()&^spec.Capability("CAP_SYS_MODULE"), uint32(0o077), 5
	byDefault := spec.Sandbox{NoNewPrivileges: true, ProtectClock: true, ProtectKernelLogs: true, CapabilityBoundingSet: &drop}
	strict := spec.Sandbox{NoNewPrivileges: true, PrivateDevices: true, CapabilityBoundingSet: &none, UMask: &mask, DynamicUser: true}
	bind := spec.Sandbox{AmbientCapabilities: spec.Capability("CAP_NET_BIND_SERVICE")}
	user := &spec.Credentials{UID: 1000, GID: 1000, Groups: []uint32{1000, 44}}
	root, rootless := starter{root: true, bounds: true}, starter{}
	room := func(p *fork.Process) { p.Namespaces, p.PIDNamespace = []int{20, 21}, 22 }
	score := "500"
	var text strings.Builder
	for _, job := range []struct {
		what string
		by   starter
		who  *spec.Credentials
		box  spec.Sandbox
		edit func(*spec.Run, *Options)
		room func(*fork.Process) // what a room adds, as numbers
	}{
		{"of root, profile off", root, &spec.Credentials{Groups: []uint32{0}}, spec.Sandbox{}, nil, nil},
		{"of a user, profile off", root, user, spec.Sandbox{}, nil, nil},
		{"of a user, profile default", root, user, byDefault, nil, room},
		{"of a user of its slot's own, profile strict", root, user, strict, nil, func(p *fork.Process) {
			room(p)
			p.UserNamespace, p.Ruleset = 23, 24
		}},
		{"of a user who may bind to low ports", root, user, bind, nil, nil},
		{"with limits", root, user, spec.Sandbox{}, func(j *spec.Run, o *Options) {
			j.Limits.Nice, j.Limits.RLimits = &nice, []spec.RLimit{{Resource: "core"}}
			o.NoFile, o.Ignored, o.OOMScoreAdj = unix.Rlimit{Cur: 1024, Max: 4096}, []int{int(unix.SIGPIPE)}, &score
		}, nil},
		{"of an engine that is not root, profile off", rootless, nil, spec.Sandbox{}, nil, nil},
		{"of an engine that is not root, profile strict", rootless, nil, strict, nil, func(p *fork.Process) {
			room(p)
			p.UserNamespace = 3
		}},
	} {
		j := &spec.Run{Path: "/usr/bin/make", Args: []string{"make"}, Dir: "/srv", Sandbox: job.box, Credentials: job.who}
		o := Options{CgroupFD: -1}
		if job.box.NoNewPrivileges {
			o.Filters = []Filter{{Name: "system calls", Program: make([]unix.SockFilter, 3)}}
		}
		if job.edit != nil {
			job.edit(j, &o)
		}
		p, err := process(j, o, job.by)
		if err != nil {
			t.Fatal(err)
		}
		p.Files = [3]int{10, 11, 12}
		if job.room != nil {
			job.room(&p)
		}
		c, err := fork.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "A job %s:\n%s  execve(%s)\n\n", job.what, show(c), strings.Join(p.Paths, " or "))
	}
	const file = "testdata/calls.txt"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(text.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) || got[i] != lines[i] {
			t.Fatalf("line %d of %s differs, which UPDATE=1 writes anew:\n%s", i+1, file, text.String())
		}
	}
}
