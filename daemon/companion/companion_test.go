package companion

import (
	"os"
	"os/exec"
	"os/user"
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
