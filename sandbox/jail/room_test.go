package jail

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/safepath"
	"github.com/rtask/rtask/sandbox/spec"
)

// BenchmarkRoom is what a slot takes once, and again after a job that left something.
func BenchmarkRoom(b *testing.B) {
	s := spec.Sandbox{
		PrivateTmp: true, PrivateIPC: true, PrivatePIDs: true, ProtectHostname: true, ProtectKernelTunables: true, ProtectKernelLogs: true,
		ProtectControlGroups: true, DynamicUser: true, UserName: "rtask-job",
	}
	for b.Loop() {
		r, err := NewRoom(s, "/", &spec.Credentials{UID: 70000, GID: 70000})
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// TestRoomErrors: what cannot be had names the switch and the path.
func TestRoomErrors(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces here")
	}
	for want, s := range map[string]spec.Sandbox{
		"cannot apply read_only_paths to /nowhere/x: no such file or directory":    {ReadOnlyPaths: []string{"/nowhere/x"}},
		"cannot apply inaccessible_paths to /nowhere/x: no such file or directory": {InaccessiblePaths: []string{"/nowhere/x"}},
		"cannot apply bind_paths to /nowhere/x: no such file or directory":         {Binds: []spec.Bind{{Source: "/nowhere/x", Destination: "/tmp"}}},
		"cannot apply load_credential to /nowhere/x: no such file or directory":    {LoadCredential: []spec.Credential{{Name: "x", Path: "/nowhere/x"}}},
		"cannot apply temporary_file_system to /mnt: size=much: invalid argument":  {TemporaryFileSystem: []spec.TemporaryFileSystem{{Path: "/mnt", Options: "size=much"}}},
	} {
		r, err := NewRoom(s, "/", nil)
		if err == nil {
			r.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	r, err := NewRoom(spec.Sandbox{ReadOnlyPaths: []string{"-/nowhere/x"}, InaccessiblePaths: []string{"-/nowhere/y"}, PrivateTmp: true}, "/nowhere/z", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if !r.Untouched() {
		t.Error("a new room counts as touched")
	}
}

// TestRoomOfCaller: a room for somebody else's command is made with the caller's rights. Nothing is made on the machine, and an
// error is the same whether there is something in a folder that the caller cannot enter or not.
func TestRoomOfCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces here")
	}
	dir := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "open"), 0o755), os.Mkdir(filepath.Join(dir, "closed"), 0o700),
		os.Mkdir(filepath.Join(dir, "closed", "secret"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	caller := &spec.Credentials{UID: 70000, GID: 70000}
	list := func(paths ...string) (all []spec.TemporaryFileSystem) {
		for _, p := range paths {
			all = append(all, spec.TemporaryFileSystem{Path: p})
		}
		return all
	}
	for _, name := range []string{"closed/secret", "closed/none", "closed/secret/x", "closed/none/x"} {
		p := filepath.Join(dir, name)
		for by, s := range map[string]spec.Sandbox{
			"read_only_paths": {ReadOnlyPaths: []string{p}}, "read_write_paths": {ReadWritePaths: []string{p}}, "inaccessible_paths": {InaccessiblePaths: []string{p}},
			"exec_paths": {ExecPaths: []string{p}}, "no_exec_paths": {NoExecPaths: []string{"-" + p}}, "temporary_file_system": {TemporaryFileSystem: list(p)},
			"bind_paths":           {Binds: []spec.Bind{{Source: p, Destination: "/mnt"}}},
			"bind_read_only_paths": {Binds: []spec.Bind{{Source: "/mnt", Destination: p, ReadOnly: true}}},
		} {
			s.AsCaller = true
			r, err := NewRoom(s, "/", caller)
			if err == nil {
				r.Close()
			}
			if want := "cannot apply " + by + " to " + p + ": permission denied"; err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
	for _, s := range []spec.Sandbox{
		{TemporaryFileSystem: list(dir + "/open/new")}, {TemporaryFileSystem: list(dir + "/open/new/below")},
		{Binds: []spec.Bind{{Source: "/mnt", Destination: dir + "/open/new"}}}, {Binds: []spec.Bind{{Source: "/etc/passwd", Destination: dir + "/open/new"}}},
		// Below what is bound, it is the machine's as well.
		{Binds: []spec.Bind{{Source: dir + "/open", Destination: "/mnt"}, {Source: "/usr", Destination: "/mnt/new"}}},
	} {
		s.AsCaller = true
		r, err := NewRoom(s, "/", caller)
		if err == nil {
			r.Close()
		}
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if left, err := os.ReadDir(dir + "/open"); err != nil || len(left) != 0 {
		t.Errorf("made on the machine: %v, %v", left, err)
	}
	// In file systems of the room's own, all that is needed is made.
	s := spec.Sandbox{AsCaller: true, PrivateTmp: true, ProtectHome: "tmpfs", TemporaryFileSystem: list(dir+"/open", dir+"/open/a/b", "/home/new/c")}
	r, err := NewRoom(s, "/", caller)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for path, want := range map[string]bool{dir + "/open/a/b": true, "/home/new/c": true, "/root/.profile": false, "/etc/passwd": true, "/etc/shadow": true, dir + "/closed/secret": false} {
		if got := r.has(caller, path); got != want {
			t.Errorf("%s is there for the job: %v", path, got)
		}
	}
	if err := os.Remove(dir + "/open"); err != nil { // nothing was made in it
		t.Error(err)
	}
}

// TestOthersLinks: a task's switch does not follow a user's symbolic link to what is not the user's.
func TestOthersLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces here")
	}
	dir := t.TempDir()
	link, secret := filepath.Join(dir, "link"), filepath.Join(dir, "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("root's"), 0o600), os.Symlink(secret, link), os.Lchown(link, 70000, 70000)); err != nil {
		t.Fatal(err)
	}
	for by, s := range map[string]spec.Sandbox{
		"read_only_paths":      {ReadOnlyPaths: []string{link}},
		"bind_paths":           {Binds: []spec.Bind{{Source: link, Destination: "/mnt"}}},
		"bind_read_only_paths": {Binds: []spec.Bind{{Source: "/etc/hostname", Destination: link, ReadOnly: true}}},
		"load_credential":      {LoadCredential: []spec.Credential{{Name: "x", Path: link}}},
	} {
		r, err := NewRoom(s, "/", &spec.Credentials{UID: 70000, GID: 70000})
		if err == nil {
			r.Close()
		}
		var refused *safepath.LinkError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), by) {
			t.Errorf("%s: %v", by, err)
		}
	}
}

// TestEveryTmpfsHasLimits: no file system that a room makes in memory can take more than a part of it, or any number of files.
func TestEveryTmpfsHasLimits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces here")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("x"), 10000), 0o600); err != nil {
		t.Fatal(err)
	}
	machine, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRoom(spec.Sandbox{
		PrivateTmp: true, PrivateIPC: true, PrivateDevices: true, ProtectHome: "tmpfs", HideRun: true, DynamicUser: true, UserName: "x",
		InaccessiblePaths:   []string{"/mnt"},
		TemporaryFileSystem: []spec.TemporaryFileSystem{{Path: "/srv"}, {Path: "/opt", Options: "size=1m"}, {Path: "/var/tmp", Options: "nr_inodes=7"}},
		LoadCredential:      []spec.Credential{{Name: "x", Path: secret}},
	}, "/", &spec.Credentials{UID: 70000, GID: 70000})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 1<<20)
	n := 0
	for {
		got, err := unix.Read(int(r.mounts.Fd()), b[n:])
		if err != nil {
			t.Fatal(err)
		}
		if n += got; got == 0 {
			break
		}
	}
	seen := map[string]string{}
	for line := range strings.Lines(string(b[:n])) {
		f := strings.Fields(line)
		if f[len(f)-3] == "tmpfs" && !strings.Contains(string(machine), " "+f[2]+" ") {
			seen[f[4]] = f[len(f)-1]
			if !strings.Contains(f[len(f)-1], ",size=") || !strings.Contains(f[len(f)-1], ",nr_inodes=") {
				t.Errorf("%s has no limits: %s", f[4], f[len(f)-1])
			}
		}
	}
	for path, want := range map[string]string{
		"/tmp": "nr_inodes=", "/var/tmp": "nr_inodes=7", "/dev/shm": "nr_inodes=", "/dev": "size=4096k", "/home": "size=4096k", "/run": "nr_inodes=1024", "/srv": "nr_inodes=", "/opt": "size=1024k",
		"/mnt": "nr_inodes=", "/etc/passwd": "nr_inodes=", "/run/rtask/credentials": "nr_inodes=3",
	} {
		if got := seen[path]; !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %s", path, got, want)
		}
	}
}
