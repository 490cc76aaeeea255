package jail

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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

// TestOpenFollowsNothing: a link that was put in the place of what was looked at is not followed.
func TestOpenFollowsNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"real": nil, "link": unix.ELOOP, "link/.": unix.ELOOP, "none": unix.ENOENT} {
		fd, err := open(filepath.Join(dir, path))
		if err == nil {
			_ = unix.Close(fd)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
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
