package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/packaging/testkit"
	"github.com/rtask/rtask/sandbox/spec"
)

func TestExitStatus(t *testing.T) {
	l := newLab(t)
	tests := []struct {
		script string
		reason spec.Reason
		code   int
		signal int
	}{
		{"exit 0", spec.Succeeded, 0, 0},
		{"exit 1", spec.ExitCode, 1, 0},
		{"exit 255", spec.ExitCode, 255, 0},
		{"exit 143", spec.ExitCode, 143, 0},
		{"kill -TERM $$", spec.Signal, -1, int(unix.SIGTERM)},
		{"kill -KILL $$", spec.Signal, -1, int(unix.SIGKILL)},
		{"ulimit -c 0; kill -SEGV $$", spec.Signal, -1, int(unix.SIGSEGV)},
	}
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			j := l.job(tt.script)
			before := time.Now()
			exit := l.run(j)
			is(t, exit, tt.reason, tt.code, tt.signal)
			if exit.Job != j.ID || exit.Detail != "" {
				t.Errorf("job %q, detail %q", exit.Job, exit.Detail)
			}
			if exit.Ended.Before(before) || exit.Ended.After(time.Now()) {
				t.Errorf("ended at %v", exit.Ended)
			}
			if _, err := os.Stat(j.Record); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is a record, though the engine was told: %v", err)
			}
		})
	}
}

func TestRecordAlways(t *testing.T) {
	l := newLab(t)
	j := l.job("exit 3")
	j.RecordAlways = true
	is(t, l.run(j), spec.ExitCode, 3, 0)
	exit, err := ReadRecord(j.Record)
	if err != nil {
		t.Fatal(err)
	}
	is(t, exit, spec.ExitCode, 3, 0)
	if files, err := filepath.Glob(filepath.Join(l.dir, ".exit-*")); len(files) > 0 || err != nil {
		t.Errorf("temporary files are left: %v, %v", files, err)
	}
}

// TestLogIsOnDisk: whoever reads in a record that a job has ended finds all that it wrote, also after a power cut.
func TestLogIsOnDisk(t *testing.T) {
	l := newLab(t)
	unsynced := filepath.Join(l.dir, "unsynced")
	if err := os.WriteFile(unsynced, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, unsynced) {
		t.Skipf("the file system of %s does not tell what is on disk", l.dir)
	}
	j := l.job("echo what it wrote")
	j.RecordAlways = true
	is(t, l.run(j), spec.Succeeded, 0, 0)
	if !onDisk(t, l.log(j)) {
		t.Error("the end is on record, and the log is not on disk")
	}
}

// onDisk reports whether the file system has put all of a file on its disk, as far as it tells: what it has not yet found a
// place for is not there (FIEMAP_EXTENT_DELALLOC).
func onDisk(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const fsIocFiemap, delalloc = 0xc020660b, 0x4
	var m struct { // struct fiemap and its extents, linux/fiemap.h
		start, length           uint64
		flags, mapped, count, _ uint32
		extents                 [16]struct {
			_     [5]uint64
			flags uint32
			_     [3]uint32
		}
	}
	m.length, m.count = math.MaxUint64, uint32(len(m.extents))
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m))); e != 0 {
		t.Skipf("the file system of %s does not tell what is on disk: %v", path, e)
	}
	for _, extent := range m.extents[:m.mapped] {
		if extent.flags&delalloc != 0 {
			return false
		}
	}
	return m.mapped > 0
}

// TestRecordCannotBeWritten: an engine that is there is told, and told what is wrong.
func TestRecordCannotBeWritten(t *testing.T) {
	l := newLab(t)
	j := l.job("exit 3")
	j.RecordAlways = true
	j.Record = filepath.Join(l.dir, "none", "record")
	exit := l.run(j)
	is(t, exit, spec.ExitCode, 3, 0)
	if !strings.Contains(exit.Detail, "cannot write the exit record") {
		t.Errorf("detail %q", exit.Detail)
	}
}

func TestOutput(t *testing.T) {
	l := newLab(t)
	j := l.job(`echo one; echo two >&2; printf 'three'; printf 'four\000\377\nfive' >&2`)
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	const stdout, stderr = "one\nthree", "two\nfour\x00\xff\nfive"
	if string(exit.Stdout) != stdout || string(exit.Stderr) != stderr || exit.Truncated {
		t.Errorf("replied %q and %q, truncated %v", exit.Stdout, exit.Stderr, exit.Truncated)
	}
	if o, e := l.logged(j); o != stdout || e != stderr {
		t.Errorf("logged %q and %q", o, e)
	}
	if want := uint64(len(stdout) + len(stderr)); exit.LogBytes != want || exit.LogDropped != 0 {
		t.Errorf("%d bytes, %d dropped; want %d, 0", exit.LogBytes, exit.LogDropped, want)
	}
}

func TestRedirectStderr(t *testing.T) {
	l := newLab(t)
	var script, want strings.Builder
	for i := range 200 {
		fmt.Fprintf(&script, "echo %d >&%d\n", i, 1+i%2)
		fmt.Fprintf(&want, "%d\n", i)
	}
	j := l.job(script.String())
	j.RedirectStderr = true
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if string(exit.Stdout) != want.String() || len(exit.Stderr) != 0 {
		t.Errorf("replied %q and %q, want them in order", exit.Stdout, exit.Stderr)
	}
}

func TestMuchOutput(t *testing.T) {
	l := newLab(t)
	want := make([]byte, 5<<20)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	file := filepath.Join(l.dir, "bytes")
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
	j := l.job(`cat "$1"`, file)
	j.MaxReply = math.MaxInt64
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if !bytes.Equal(exit.Stdout, want) || exit.Truncated {
		t.Errorf("replied %d bytes that are others, truncated %v", len(exit.Stdout), exit.Truncated)
	}
	if o, _ := l.logged(j); o != string(want) {
		t.Errorf("logged %d bytes that are others", len(o))
	}
}

func TestCaps(t *testing.T) {
	l := newLab(t)
	j := l.job(`head -c 100000 /dev/zero; echo end >&2`)
	j.MaxReply, j.LogMax = 10, 1000
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if len(exit.Stdout) != 10 || string(exit.Stderr) != "end\n" || !exit.Truncated {
		t.Errorf("replied %d bytes and %q, truncated %v", len(exit.Stdout), exit.Stderr, exit.Truncated)
	}
	o, e := l.logged(j)
	if len(o)+len(e) != 1000 || exit.LogBytes != 100004 || exit.LogDropped != 100004-1000 {
		t.Errorf("logged %d bytes; said to be %d, %d dropped", len(o)+len(e), exit.LogBytes, exit.LogDropped)
	}
}

func TestInput(t *testing.T) {
	l := newLab(t)
	const input = "line\x00\nno end"
	if exit := l.run(l.job("cat"), input); string(exit.Stdout) != input {
		t.Errorf("read %q", exit.Stdout)
	}
	if exit := l.run(l.job("cat; echo end")); string(exit.Stdout) != "end\n" {
		t.Errorf("read %q from an empty input", exit.Stdout)
	}
	// A job cannot write to it, nor to what the engine or another job reads.
	exit := l.run(l.job("echo x >&0; cat"), input)
	if string(exit.Stdout) != input || len(exit.Stderr) == 0 {
		t.Errorf("read %q after it wrote to its input, %q", exit.Stdout, exit.Stderr)
	}
}

func TestLargeArgumentsAndEnvironment(t *testing.T) {
	l := newLab(t)
	var args []string
	for i := range 300 {
		args = append(args, strings.Repeat(string(rune('a'+i%26)), 1024))
	}
	j := l.job(`printf %s "$@"; printf %s "$BIG" "$BYTES"`, args...)
	big := strings.Repeat("e", 100<<10)
	j.Env = append(j.Env, "BIG="+big, "BYTES=\xff\xfe", "EMPTY=")
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if want := strings.Join(args, "") + big + "\xff\xfe"; string(exit.Stdout) != want {
		t.Errorf("wrote %d bytes, want %d", len(exit.Stdout), len(want))
	}
}

func TestSetupFailures(t *testing.T) {
	l := newLab(t)
	plain := filepath.Join(l.dir, "plain")
	noScript := filepath.Join(l.dir, "noscript")
	noInterpreter := filepath.Join(l.dir, "nointerpreter")
	for path, mode := range map[string]os.FileMode{plain: 0o644, noScript: 0o755, noInterpreter: 0o755} {
		content := "exit 0\n"
		if path == noInterpreter {
			content = "#!/does/not/exist\n"
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		edit func(*spec.Run)
		code int
		want []string
	}{
		{"no directory", func(j *spec.Run) { j.Dir = "/does/not/exist" }, -1, []string{"working directory", "/does/not/exist", "no such file"}},
		{"not found", func(j *spec.Run) { j.Path = "/does/not/exist" }, 127, []string{"/does/not/exist", "no such file"}},
		{"not in PATH", func(j *spec.Run) { j.Path = "does-not-exist" }, 127, []string{"cannot find does-not-exist in PATH"}},
		{"not executable", func(j *spec.Run) { j.Path = plain }, 126, []string{plain, "permission denied"}},
		{"a directory", func(j *spec.Run) { j.Path = "/tmp" }, 126, []string{"/tmp", "permission denied"}},
		{"no #!", func(j *spec.Run) { j.Path = noScript }, 126, []string{noScript, "#!"}},
		{"no interpreter", func(j *spec.Run) { j.Path = noInterpreter }, 127, []string{noInterpreter, "interpreter"}},
		{
			"no interpreter, relative", func(j *spec.Run) { j.Path, j.Dir = "./nointerpreter", l.dir }, 127,
			[]string{"nointerpreter", "interpreter"},
		},
		{"argument too long", func(j *spec.Run) { j.Args = append(j.Args, strings.Repeat("x", 1<<20)) }, 126, []string{"argument list too long"}},
		{"NUL in an argument", func(j *spec.Run) { j.Args = append(j.Args, "a\x00b") }, -1, []string{"arguments"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := l.job("echo ran")
			tt.edit(&j)
			exit := l.run(j)
			is(t, exit, spec.Setup, tt.code, 0)
			for _, w := range tt.want {
				if !strings.Contains(exit.Detail, w) {
					t.Errorf("detail %q lacks %q", exit.Detail, w)
				}
			}
			if len(exit.Stdout) > 0 {
				t.Errorf("it ran: %q", exit.Stdout)
			}
		})
	}
}

// TestSearch: an earlier folder of PATH without the command is passed over.
func TestSearch(t *testing.T) {
	l := newLab(t)
	j := l.job("echo ran")
	j.Path = "sh"
	j.Env[0] = "PATH=/does/not/exist:" + l.dir + "::relative:/usr/bin:/bin"
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	if string(exit.Stdout) != "ran\n" {
		t.Errorf("wrote %q", exit.Stdout)
	}
}

// TestInherited: a job gets nothing of the shim's or the engine's but what it is meant to.
func TestInherited(t *testing.T) {
	l := newLab(t)
	umask := unix.Umask(0)
	unix.Umask(umask)
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	// What the shell has of its own would be in the way, so it looks at other programs, which have what it got.
	j := l.job(`ls /proc/self/fd; cat /proc/self/oom_score_adj; ulimit -Sn; umask; cat /proc/self/status; env | sort; pwd`)
	j.Env = []string{"A=1", markVariable + "=" + l.mark}
	j.Sandbox.NoNewPrivileges = true
	j.Dir = l.dir
	exit := l.run(j)
	is(t, exit, spec.Succeeded, 0, 0)
	got := string(exit.Stdout)
	for _, want := range []string{
		// The fourth is the folder that ls reads.
		"0\n1\n2\n3\n" + string(score) + "1024\n" + fmt.Sprintf("%04o\n", umask),
		"NoNewPrivs:\t1\n", "SigBlk:\t0000000000000000\n",
		"A=1\nPWD=" + l.dir + "\n" + markVariable + "=" + l.mark + "\n", l.dir + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, which lacks %q", got, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	l := newLab(t)
	// What a job opens by these names is checked as any file, and the pipes were made by root.
	j := l.job(`id -u; id -g; id -G; echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin`)
	j.Credentials = &spec.Credentials{UID: 71234, GID: 72345, Groups: []uint32{73456}}
	exit := l.run(j, "input")
	is(t, exit, spec.Succeeded, 0, 0)
	if want := "71234\n72345\n72345 73456\nout\ninput"; string(exit.Stdout) != want {
		t.Errorf("wrote %q, want %q", exit.Stdout, want)
	}
	if string(exit.Stderr) != "err\n" {
		t.Errorf("wrote %q to standard error", exit.Stderr)
	}
	// A folder that the user may not enter is not entered.
	j = l.job("echo ran")
	j.Credentials = &spec.Credentials{UID: 71234, GID: 72345}
	j.Dir = l.sockets
	exit = l.run(j)
	is(t, exit, spec.Setup, -1, 0)
	if !strings.Contains(exit.Detail, l.sockets) || !strings.Contains(exit.Detail, "permission denied") {
		t.Errorf("detail %q", exit.Detail)
	}
}

func TestCredentialsNeedPrivilege(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may become anybody")
	}
	l := newLab(t)
	j := l.job("echo ran")
	j.Credentials = &spec.Credentials{UID: 0, GID: 0}
	exit := l.run(j)
	is(t, exit, spec.Setup, -1, 0)
	if !strings.Contains(exit.Detail, "cannot set") {
		t.Errorf("detail %q", exit.Detail)
	}
}

func TestUsage(t *testing.T) {
	l := newLab(t)
	exit := l.run(l.job(`i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done`))
	is(t, exit, spec.Succeeded, 0, 0)
	if exit.Usage.CPUUsec == nil || *exit.Usage.CPUUsec == 0 {
		t.Errorf("usage %+v", exit.Usage)
	}
}

func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	limit := make(chan struct{}, 50)
	for i := range 200 {
		j := l.job(`read x; echo "$x"; exit $1`, fmt.Sprint(i))
		j.RecordAlways = i%2 == 0
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			p, err := l.start(j, fmt.Sprintf("input %d\n", i))
			if err != nil {
				t.Error(err)
				return
			}
			<-p.Done()
			release(p)
			exit := p.Exit()
			if exit.Code != i || string(exit.Stdout) != fmt.Sprintf("input %d\n", i) {
				t.Errorf("job %d: code %d, %q, detail %q", i, exit.Code, exit.Stdout, exit.Detail)
			}
		})
	}
	wg.Wait()
}

func TestOpenRefusesLongPaths(t *testing.T) {
	long := "/" + strings.Repeat("x", maxSocketPath-idLength-1)
	_, err := Open(t.Context(), Options{Shim: testkit.Shim(), RuntimeDir: long, NoSystemd: true})
	if err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("error %v", err)
	}
	for _, o := range []Options{{Shim: "shim", RuntimeDir: t.TempDir()}, {Shim: testkit.Shim(), RuntimeDir: "run"}} {
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "absolute") {
			t.Errorf("%+v: error %v", o, err)
		}
	}
}

func TestLimitsNeedSystemd(t *testing.T) {
	l := newLab(t)
	one := uint64(1)
	if err := l.Check(spec.Limits{TasksMax: &one}); !errors.Is(err, ErrUnenforceable) {
		t.Errorf("error %v", err)
	}
	if err := l.Check(spec.Limits{}); err != nil {
		t.Error(err)
	}
}

// A folder in which somebody else could put a false shim's socket is not used.
func TestOpenRefusesOthersFolders(t *testing.T) {
	writable := t.TempDir()
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	dirs := []string{writable, link}
	if os.Geteuid() == 0 {
		foreign := t.TempDir()
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, foreign)
	}
	for _, dir := range dirs {
		_, err := Open(t.Context(), Options{Shim: testkit.Shim(), RuntimeDir: dir, NoSystemd: true})
		if err == nil || !strings.Contains(err.Error(), "a folder of user") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
