package safepath

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Two users who can write to folders of their own.
const alice, bob = 4001, 4002

// tree makes a folder with files that root and two users own, and returns its path without symbolic links.
func tree(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of other users")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		path, link string
		owner      int
	}{
		{"secret/", "", 0}, {"secret/key", "", 0}, {"alice/", "", alice}, {"alice/file", "", alice}, {"alice/releases/", "", alice}, {"alice/releases/5/", "", alice},
		{"bob/", "", bob}, {"bob/file", "", bob},
		{"by-root", "secret", 0},
		{"alice/current", "releases/5", alice}, {"alice/up", "../secret", alice}, {"alice/key", dir + "/secret/key", alice},
		{"alice/through", "../by-root/key", alice}, {"alice/other", "../bob/file", alice}, {"alice/planted", "../secret/key", 0},
		{"alice/nothing", "../secret/new", alice}, {"alice/loop", "loop", alice}, {"alice/dots", "current/../../../secret", alice},
	} {
		at := dir + "/" + one.path
		switch {
		case one.link != "":
			err = os.Symlink(one.link, at)
		case at[len(at)-1] == '/':
			err = os.Mkdir(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(one.path), 0o600)
		}
		if err := errors.Join(err, os.Lchown(filepath.Clean(at), one.owner, one.owner)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestResolve: a user's link leads to what the same user owns, and nowhere else.
func TestResolve(t *testing.T) {
	dir := tree(t)
	for name, want := range map[string]string{
		"by-root": "secret", "by-root/key": "secret/key", "alice/current": "alice/releases/5", "alice/current/": "alice/releases/5", "alice/planted": "secret/key",
		"alice/./releases/../file": "alice/file", "alice": "alice",
	} {
		if got, err := Resolve(dir + "/" + name); err != nil || got != dir+"/"+want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	for _, name := range []string{"alice/up", "alice/up/key", "alice/key", "alice/through", "alice/other", "alice/dots"} {
		got, err := Resolve(dir + "/" + name)
		var link *LinkError
		if !errors.As(err, &link) || link.Owner != alice {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for name, want := range map[string]error{"alice/nothing": unix.ENOENT, "alice/loop": unix.ELOOP, "none": unix.ENOENT, "alice/file/x": unix.ENOTDIR} {
		if got, err := Resolve(dir + "/" + name); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v, want %v", name, got, err, want)
		}
	}
	if got, err := Resolve(dir+"/alice/up", alice); err != nil || got != dir+"/secret" {
		t.Errorf("a trusted user's link: %s, %v", got, err)
	}
	if got, err := Resolve(dir+"/alice/up", bob); err == nil {
		t.Errorf("another user's link: %s", got)
	}
	for name, want := range map[string]string{"alice/a/b": "alice/a/b", "by-root/a/b": "secret/a/b", "alice/nothing": "alice/nothing", "alice/nothing/x": "alice/nothing/x"} {
		if got, err := ResolveMissing(dir + "/" + name); err != nil || got != dir+"/"+want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	if got, err := ResolveMissing(dir + "/alice/up/a/b"); err == nil {
		t.Errorf("what is missing behind a user's link: %s", got)
	}
}

// TestOpen: a link that was put in the place of what was looked at is not followed, and nothing is made or emptied.
func TestOpen(t *testing.T) {
	dir := tree(t)
	for name, want := range map[string]error{
		"alice/file": nil, "alice/current": unix.ELOOP, "alice/current/.": unix.ELOOP, "by-root/key": unix.ELOOP, "none": unix.ENOENT,
	} {
		fd, err := Open(dir+"/"+name, unix.O_PATH)
		if err == nil {
			_ = unix.Close(fd)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	for _, flags := range []int{unix.O_CREAT | unix.O_WRONLY, unix.O_TRUNC | unix.O_WRONLY} {
		if _, err := Open(dir+"/alice/file", flags); err == nil {
			t.Errorf("flags %#x are taken", flags)
		}
	}
	t.Chdir(dir)
	if f, err := OpenFile("alice/file"); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
	if _, err := OpenFile(dir + "/alice/key"); err == nil {
		t.Error("a link to root's file was opened")
	}
	if err := unix.Mkfifo(dir+"/alice/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(dir + "/alice/fifo") // which waits for nobody
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

// TestMake: what is missing is made, what is there stays, and no link is followed.
func TestMake(t *testing.T) {
	dir := tree(t)
	for name, file := range map[string]bool{"alice/a/b": false, "alice/c/d": true, "alice/file": true, "bob": false} {
		if err := (Maker{}).Make(dir+"/"+name, file); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if fi, err := os.Lstat(dir + "/" + name); err != nil || fi.IsDir() == file {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	// A link in the last place is there, and stays; one above it is in the way.
	for name, want := range map[string]error{"alice/nothing": nil, "alice/key": nil, "alice/up/new": unix.ENOTDIR, "alice/current/new": unix.ENOTDIR, "by-root/new": unix.ENOTDIR} {
		for _, file := range []bool{true, false} {
			if err := (Maker{}).Make(dir+"/"+name, file); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
	if left, err := os.ReadDir(dir + "/secret"); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if text, err := os.ReadFile(dir + "/secret/key"); string(text) != "secret/key" {
		t.Errorf("root's file is %q, %v", text, err)
	}
	refused := errors.New("refused")
	if err := (Maker{May: func(int) error { return refused }}).Make(dir+"/alice/x/y", false); !errors.Is(err, refused) {
		t.Error(err)
	}
	var made []string
	m := Maker{Made: func(_ int, path string) error { made = append(made, path); return nil }}
	if err := m.Make(dir+"/alice/x/y/z", false); err != nil || len(made) != 2 || made[1] != dir+"/alice/x/y" {
		t.Errorf("%q, %v", made, err)
	}
}

// TestFlippingLink: however a user changes what is at a path while root makes something there, root's file stays as it is.
func TestFlippingLink(t *testing.T) {
	dir := tree(t)
	at := dir + "/alice/flip/target"
	stop, done := make(chan struct{}), make(chan struct{})
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: what it makes is alice's
		if _, err := unix.SetfsuidRetUid(alice); err != nil {
			return
		}
		for {
			select {
			case <-stop:
				return
			default:
			}
			// The folder above it is one, or a link to root's; the target is nothing, or a link to root's file.
			_ = os.Mkdir(dir+"/alice/flip", 0o755)
			_ = os.Symlink(dir+"/secret/key", at)
			_ = os.RemoveAll(dir + "/alice/flip")
			_ = os.Symlink(dir+"/secret", dir+"/alice/flip")
			_ = os.Remove(dir + "/alice/flip")
		}
	}()
	made := 0
	for range 5000 {
		if resolved, err := ResolveMissing(at); err == nil {
			if (Maker{}).Make(resolved, true) == nil {
				made++
			}
		}
	}
	close(stop)
	<-done
	if made == 0 {
		t.Error("nothing was ever made")
	}
	if left, err := os.ReadDir(dir + "/secret"); err != nil || len(left) != 1 {
		t.Errorf("in root's folder there are %v, %v", left, err)
	}
	if text, err := os.ReadFile(dir + "/secret/key"); string(text) != "secret/key" {
		t.Errorf("root's file is %q, %v", text, err)
	}
}
