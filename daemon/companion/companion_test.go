package companion

import (
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The gateway that root starts has a user of its own, or a number that nobody else has.
func TestCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, _, ok := new(Options).Credentials(); ok {
			t.Error("who is not root changes its user")
		}
		return
	}
	o := &Options{}
	uid, gid, ok := o.Credentials()
	if again, _, _ := o.Credentials(); again != uid {
		t.Errorf("%d, and then %d", uid, again)
	}
	if u, err := user.Lookup(gatewayUser); err == nil {
		if id, _, _ := o.Credentials(); u.Uid == "0" || !ok || id == 0 {
			t.Errorf("%d for %v", id, u)
		}
	} else if !ok || uid < firstUID || uid > lastUID || gid != uid {
		t.Errorf("%d, %d, %v", uid, gid, ok)
	}

	// Of two numbers, one of which a process has, it is the other.
	const busy, free = firstUID + 4000, firstUID + 4001
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: busy, Gid: busy}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for range 10 {
		o := &Options{Avoid: func(uid uint32) bool { return uid != busy && uid != free }}
		if uid := o.free(); uid != free {
			t.Fatalf("%d, want %d", uid, free)
		}
	}
}

// The gateway reads the key for remote clients from a pipe: what is in the files, and nothing where there is no key yet.
func TestRemoteKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("x", 200_000) // more than a pipe takes
	key, cert, none := file("key", "KEY"), file("cert", "CERT"), filepath.Join(dir, "none")
	for name, c := range map[string]struct {
		o    *Options
		want string // "": an error
	}{
		"the key that is kept":      {&Options{KeptKey: key}, "\nKEY"},
		"another one":               {&Options{RemoteKey: key, KeptKey: none}, "\nKEY"},
		"with a certificate":        {&Options{RemoteKey: key, RemoteCert: cert, KeptKey: none}, "CERT\nKEY"},
		"another one, which is not": {&Options{RemoteKey: none, KeptKey: key}, ""},
		"no certificate":            {&Options{KeptKey: key, RemoteCert: none}, ""},
		"too long":                  {&Options{RemoteKey: long}, ""},
	} {
		r, err := c.o.remoteKey()
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != c.want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		r.Close()
	}
	r, err := (&Options{KeptKey: none}).remoteKey()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || len(b) != 0 {
		t.Errorf("without a key: %q, %v", b, err)
	}
}
