package testkit

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

// SSHAgent runs an ssh-agent of OpenSSH's and returns its socket.
func SSHAgent(t testing.TB) (socket string) {
	t.Helper()
	program, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Fatal("this test needs ssh-agent (Debian: openssh-client): ", err)
	}
	socket = filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command(program, "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	Eventually(t, "ssh-agent listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return socket
}
