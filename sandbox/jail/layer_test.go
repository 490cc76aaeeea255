package jail

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/jail/fork"
	"github.com/rtask/rtask/sandbox/jail/landlock"
	"github.com/rtask/rtask/sandbox/spec"
)

// underLayer runs a script under the second layer of s alone: in no namespace, and with whatever privilege the test has.
func underLayer(t *testing.T, s spec.Sandbox, dir, script string) string {
	t.Helper()
	places, err := (&furnisher{}).resolve(wanted(s, dir))
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLayer(arrange(places))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, pidfd, err := fork.Start(fork.Process{
		Paths: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Dir: dir, CgroupFD: -1,
		Files: [3]int{int(null.Fd()), int(w.Fd()), int(w.Fd())}, Ruleset: l.ruleset.FD(),
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestLayer: what mounts refuse is refused without them, too, also to root, and what they leave is left.
func TestLayer(t *testing.T) {
	v, err := landlock.Version()
	if err != nil {
		t.Skipf("there is no Landlock here: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be under a ruleset without no_new_privs")
	}
	dir := t.TempDir()
	work := filepath.Join(dir, "work")
	for _, one := range []string{"work/sub", "secret/deep", "plain", "noexec"} {
		if err := os.MkdirAll(filepath.Join(dir, one), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"secret/file": []byte("s"), "secret/deep/file": []byte("s"), "plain/file": []byte("p"), "noexec/true": program, "plain/true": program,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "plain/fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := spec.Sandbox{
		Profile: "strict", NoNewPrivileges: true, PrivatePIDs: true, SystemCallFilter: []string{"@system-service", "~@privileged @keyring userfaultfd"},
		ProtectSystem: "strict", PrivateDevices: true, ProtectKernelModules: true,
		InaccessiblePaths: []string{dir + "/secret"}, NoExecPaths: []string{dir + "/noexec"},
	}
	places, err := (&furnisher{}).resolve(wanted(s, work))
	if err != nil {
		t.Fatal(err)
	}
	if !layered(s, arrange(places)) {
		t.Fatal("the profile strict has no second layer")
	}
	allowed := []string{
		"cat ../plain/file", "ls ../plain", "ls /", "ls ..", "cat /etc/passwd", "echo x >new", "mkdir d", "mv new d/moved", "ln d/moved sub/linked",
		"rm -r d", "ln -s /etc link", "truncate -s 0 sub/linked", "echo x >/dev/null", "echo x >/dev/stdout", "head -c 1 /dev/urandom",
		"echo x >/proc/self/comm", "../plain/true", "cp /bin/true t", "./t", "mkfifo f", "cd / && cat etc/hostname",
	}
	refused := []string{
		"cat ../secret/file", "cat ../secret/deep/file", "../secret/file", "../noexec/true", "echo x >../plain/file", "echo x >../plain/new",
		"echo x >../new", "rm ../plain/file", "mv ../plain/file .", "mkdir ../d", "rmdir ../noexec", "ln -s x ../link", "mkfifo ../f",
		": <>../plain/fifo", "echo x >/var/tmp/rtask-layer", "echo x >/rtask-layer", "mknod ../null c 1 3", "mount -t tmpfs x /mnt",
		"mount --bind /proc ../plain", "unshare --mount mount -t tmpfs x /mnt", "readlink /proc/" + "$PPID/exe",
	}
	if v >= 3 {
		refused = append(refused, "truncate -s 0 ../plain/file")
	}
	for want, all := range map[string][]string{"can": allowed, "cannot": refused} {
		for _, script := range all {
			out := underLayer(t, s, work, "if ("+script+"); then printf '\ncan'; else printf '\ncannot'; fi")
			if got := out[strings.LastIndex(out, "\n")+1:]; got != want {
				t.Errorf("%s: it should be that it %s: %s", script, want, out)
			}
		}
	}
}

// TestLayerOnlyWhereItFits: what Landlock would take beyond what the places say stays with jobs that may have it.
func TestLayerOnlyWhereItFits(t *testing.T) {
	strict := spec.Sandbox{
		Profile: "strict", NoNewPrivileges: true, PrivatePIDs: true, ProtectSystem: "strict", SystemCallFilter: []string{"@system-service"},
	}
	if !layered(strict, arrange(wanted(strict, "/"))) {
		t.Error("strict: none")
	}
	for name, change := range map[string]func(*spec.Sandbox){
		"another profile":              func(s *spec.Sandbox) { s.Profile = "default" },
		"a job that may mount":         func(s *spec.Sandbox) { s.SystemCallFilter = append(s.SystemCallFilter, "@mount") },
		"one without a filter":         func(s *spec.Sandbox) { s.SystemCallFilter = nil },
		"one that sees all processes":  func(s *spec.Sandbox) { s.PrivatePIDs = false },
		"one that may gain privileges": func(s *spec.Sandbox) { s.NoNewPrivileges = false },
		"one that may write all over":  func(s *spec.Sandbox) { s.ProtectSystem = "full" },
	} {
		s := strict
		change(&s)
		if layered(s, arrange(wanted(s, "/"))) {
			t.Errorf("%s: there is one", name)
		}
	}
}

// TestLayerOutdated: a folder whose entries were allowed one by one is looked at again.
func TestLayerOutdated(t *testing.T) {
	if _, err := landlock.Version(); err != nil {
		t.Skipf("there is no Landlock here: %v", err)
	}
	dir := t.TempDir()
	for _, one := range []string{"a/hidden", "a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, one), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := spec.Sandbox{ReadOnlyPaths: []string{dir}, InaccessiblePaths: []string{dir + "/a/hidden"}}
	places, err := (&furnisher{}).resolve(wanted(s, "/"))
	if err != nil {
		t.Fatal(err)
	}
	young, err := newLayer(arrange(places))
	if err != nil {
		t.Fatal(err)
	}
	defer young.close()
	if !young.outdated() {
		t.Error("a folder that changed a moment before does not count, though another change could look like that one")
	}
	past := time.Now().Add(-time.Minute)
	for _, path := range []string{".", "a"} {
		if err := os.Chtimes(filepath.Join(dir, path), past, past); err != nil {
			t.Fatal(err)
		}
	}
	l, err := newLayer(arrange(places))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, path := range []string{"a/b/new", "c/new"} {
		if err := os.Mkdir(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if l.outdated() {
		t.Error("outdated by what rules allow")
	}
	if err := os.WriteFile(filepath.Join(dir, "a/new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !l.outdated() {
		t.Error("a new file that no rule allows does not count")
	}
}
