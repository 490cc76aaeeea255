//go:build testbed

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe is a thing that a switch is to keep a job from. Script ends with 0 if it could be done.
type probe struct {
	name string // the switch
	// on is its value in rtask, and systemd the property of systemd-run with the same; "" where its 252 has no such thing.
	on, systemd string
	// user is who it runs as; "" is nobody in particular.
	user   string
	script string
	// more are further switches that the probe needs, on both sides, also when the switch is off.
	more, moreSystemd []string
	// differs says why rtask and systemd do not give the same answer.
	differs string
}

// TestMain makes the test's own program a probe, too, of system calls that no program of the machine makes by itself.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "call" || len(os.Args) != 2 {
		os.Exit(m.Run())
	}
	if err := call(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// call makes the system call that has a name.
func call(name string) error {
	number := func(n uintptr, args ...uintptr) error {
		args = append(args, make([]uintptr, 6)...)
		r, _, errno := unix.Syscall6(n, args[0], args[1], args[2], args[3], args[4], args[5])
		if errno != 0 {
			return errno
		}
		_ = unix.Close(int(r)) // those that are refused make descriptors
		return nil
	}
	switch name {
	case "clock": // to look at it takes no privilege
		_, err := unix.Adjtimex(&unix.Timex{})
		return err
	case "memory":
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		return err
	case "userfaultfd":
		return number(unix.SYS_USERFAULTFD, 1) // UFFD_USER_MODE_ONLY, for which no privilege is needed
	case "io_uring":
		var params [256]byte
		return number(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)))
	case "bpf":
		attr := [16]uint32{1, 4, 4, 1} // a hash map
		return number(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	case "perf":
		_, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}, 0, -1, -1, 0)
		return err
	case "vsock":
		return number(unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM)
	case "alg":
		return number(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET)
	case "packet":
		return number(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_DGRAM)
	case "netlink":
		return number(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW)
	case "keyctl":
		_, err := unix.AddKey("user", "escape", []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
		return err
	case "tiocsti":
		// Of no terminal it is ENOTTY, refused it is EPERM.
		if err := unix.IoctlSetPointerInt(0, unix.TIOCSTI, 'x'); errors.Is(err, unix.EPERM) {
			return err
		}
		return nil
	case "x32":
		return number(0x40000000 | 39) // getpid
	}
	return fmt.Errorf("there is no call %q", name)
}

// probes are about one switch each, over nothing.
func probes() []probe {
	const py = "exec python3 -c "
	return []probe{
		{name: "no_new_privileges", on: "true", systemd: "NoNewPrivileges=yes", script: `grep -q "NoNewPrivs:.0" /proc/self/status`},
		{name: "private_tmp", on: "true", systemd: "PrivateTmp=yes", script: "test -e /tmp/probe-file"},
		{name: "private_devices", on: "true", systemd: "PrivateDevices=yes", user: "root", script: "test -e /dev/probe-device"},
		// A device that is elsewhere, which the device controller refuses.
		{name: "private_devices", on: "true", systemd: "PrivateDevices=yes", user: "root", script: ": </srv/probe/fuse"},
		{name: "private_network", on: "true", systemd: "PrivateNetwork=yes", script: "grep -q probe0 /proc/net/dev"},
		{name: "private_ipc", on: "true", systemd: "PrivateIPC=yes", user: "root", script: "ipcs -q | grep -q 0x"},
		{name: "private_pids", on: "true", user: "root", script: `test -e "/proc/$(cat /etc/probe-pid)/comm" && grep -q sleep "/proc/$(cat /etc/probe-pid)/comm"`},
		{name: "private_users", on: "true", systemd: "PrivateUsers=yes", user: "root", script: `test "$(stat -c %u /srv/probe/alice)" = 1001`},
		{name: "protect_system", on: `"true"`, systemd: "ProtectSystem=yes", user: "root", script: "touch /usr/probe"},
		{name: "protect_system", on: `"full"`, systemd: "ProtectSystem=full", user: "root", script: "touch /etc/probe"},
		{name: "protect_system", on: `"strict"`, systemd: "ProtectSystem=strict", user: "root", script: "touch /var/probe"},
		{name: "protect_home", on: `"true"`, systemd: "ProtectHome=yes", user: "root", script: "test -e /home/alice"},
		{name: "protect_home", on: `"read-only"`, systemd: "ProtectHome=read-only", user: "root", script: "touch /home/probe"},
		{name: "protect_home", on: `"tmpfs"`, systemd: "ProtectHome=tmpfs", user: "root", script: "test -e /home/alice"},
		{name: "protect_proc", on: `"invisible"`, systemd: "ProtectProc=invisible", user: "alice", script: "test -e /proc/1"},
		{name: "proc_subset", on: `"pid"`, systemd: "ProcSubset=pid", script: "test -e /proc/meminfo"},
		{name: "protect_hostname", on: "true", systemd: "ProtectHostname=yes", user: "root", script: `hostname "$(hostname)"`},
		{name: "protect_clock", on: "true", systemd: "ProtectClock=yes", user: "root", script: "exec /srv/probe/call clock"},
		{name: "protect_kernel_tunables", on: "true", systemd: "ProtectKernelTunables=yes", user: "root", script: "test -r /proc/kallsyms && head -c 1 /proc/kallsyms | grep -q ."},
		{name: "protect_kernel_modules", on: "true", systemd: "ProtectKernelModules=yes", user: "root", script: "ls /usr/lib/modules/probe"},
		{name: "protect_kernel_logs", on: "true", systemd: "ProtectKernelLogs=yes", user: "root", script: `test "$(stat -c %a /proc/kmsg)" != 0`},
		{name: "protect_control_groups", on: "true", systemd: "ProtectControlGroups=yes", user: "root", script: "mkdir /sys/fs/cgroup/probe && rmdir /sys/fs/cgroup/probe"},
		{name: "read_only_paths", on: `["/srv/probe"]`, systemd: "ReadOnlyPaths=/srv/probe", user: "root", script: "touch /srv/probe/x"},
		{name: "inaccessible_paths", on: `["/srv/probe"]`, systemd: "InaccessiblePaths=/srv/probe", user: "root", script: "test -e /srv/probe/alice"},
		{name: "temporary_file_system", on: `["/srv"]`, systemd: "TemporaryFileSystem=/srv", user: "root", script: "test -e /srv/probe"},
		{name: "no_exec_paths", on: `["/srv"]`, systemd: "NoExecPaths=/srv", script: "/srv/probe/true"},
		{name: "capability_bounding_set", on: `["~CAP_CHOWN"]`, systemd: "CapabilityBoundingSet=~CAP_CHOWN", user: "root", script: "chown alice /srv/probe/other"},
		{name: "system_call_filter", on: `["~@mount"]`, systemd: "SystemCallFilter=~@mount", user: "root", script: "mount -t tmpfs probe /mnt"},
		{name: "system_call_filter", on: `["@system-service"]`, systemd: "SystemCallFilter=@system-service", user: "root", script: "mount -t tmpfs probe /mnt"},
		{name: "restrict_address_families", on: `["AF_UNIX"]`, systemd: "RestrictAddressFamilies=AF_UNIX", script: py + `'import socket; socket.socket(socket.AF_INET)'`},
		{name: "restrict_address_families", on: `["~AF_NETLINK"]`, systemd: "RestrictAddressFamilies=~AF_NETLINK", script: py + `'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)'`},
		{name: "restrict_namespaces", on: "true", systemd: "RestrictNamespaces=yes", user: "root", script: "unshare -m true"},
		{name: "restrict_namespaces", on: `["~user"]`, systemd: "RestrictNamespaces=~user", script: "unshare -U true"},
		{name: "restrict_realtime", on: "true", systemd: "RestrictRealtime=yes", user: "root", script: py + `'import os,sys
try: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError as e: sys.exit(1)'`},
		{name: "restrict_suid_sgid", on: "true", systemd: "RestrictSUIDSGID=yes", user: "root", script: "touch /srv/probe/suid && chmod u+s /srv/probe/suid"},
		{name: "lock_personality", on: "true", systemd: "LockPersonality=yes", script: "setarch -R true"},
		{name: "memory_deny_write_execute", on: "true", systemd: "MemoryDenyWriteExecute=yes", script: "exec /srv/probe/call memory"},
		{name: "umask", on: `"0077"`, systemd: "UMask=0077", script: `test "$(umask)" = 0022`},
		// What opens something is turned round: the script can be done unless it is there.
		{name: "ambient_capabilities", on: `["CAP_CHOWN"]`, systemd: "AmbientCapabilities=CAP_CHOWN", user: "alice", script: `grep -q "CapEff:.0*$" /proc/self/status`},
		{name: "bind_paths", on: `["/srv/probe:/opt/probe"]`, systemd: "BindPaths=/srv/probe:/opt/probe", script: "test ! -e /opt/probe/alice"},
		{name: "bind_read_only_paths", on: `["/srv/probe:/opt"]`, systemd: "BindReadOnlyPaths=/srv/probe:/opt", user: "root", script: "touch /opt/x"},
		{name: "load_credential", on: `["key:/srv/probe/alice"]`, systemd: "LoadCredential=key:/srv/probe/alice", script: `test ! -r "$CREDENTIALS_DIRECTORY/key"`},
		{name: "read_write_paths", on: `["/srv/probe"]`, systemd: "ReadWritePaths=/srv/probe", user: "root", script: "! touch /srv/probe/x",
			more: []string{`read_only_paths = ["/srv"]`}, moreSystemd: []string{"ReadOnlyPaths=/srv"}},
		{name: "exec_paths", on: `["/srv/probe"]`, systemd: "ExecPaths=/srv/probe", script: "! /srv/probe/true",
			more: []string{`no_exec_paths = ["/srv"]`}, moreSystemd: []string{"NoExecPaths=/srv"}},
	}
}

// probeSetup makes what the probes look for.
const probeSetup = `
mkdir -p /srv/probe /usr/lib/modules/probe /opt
touch /srv/probe/alice /srv/probe/other /tmp/probe-file
chmod 0777 /srv/probe; chmod 0644 /srv/probe/alice
chown alice /srv/probe/alice
cp /bin/true /srv/probe/true
cp /src/bin/e2e.test /srv/probe/call
chown root:root /srv/probe/other
touch /dev/probe-device
ip link add probe0 type dummy 2>/dev/null || ip link add probe0 type veth peer name probe1
ipcmk -Q >/dev/null
sleep 100000 & echo $! >/etc/probe-pid
cp /usr/bin/id /srv/probe/suid-id
chmod u+s /srv/probe/suid-id
mkdir -m 777 /srv/probe/work
mkfifo -m 666 /srv/probe/fifo
mknod /srv/probe/fuse c 10 229
`

// TestSandbox runs a probe of each switch as a job, with the switch on and off, and through systemd-run likewise, and prints
// the answers beside each other.
func TestSandbox(t *testing.T) {
	installProbes(t)
	var tasks strings.Builder
	all := probes()
	for i, p := range all {
		for _, side := range []string{"on", "off"} {
			fmt.Fprintf(&tasks, "task \"probe-%d-%s\" {\n  command = [\"/bin/sh\", \"-c\", %q]\n", i, side, p.script)
			if p.user != "" {
				fmt.Fprintf(&tasks, "  user = %q\n", p.user)
			} else {
				tasks.WriteString("  user = \"bob\"\n")
			}
			tasks.WriteString("  sandbox {\n    profile = \"off\"\n")
			for _, m := range p.more {
				tasks.WriteString("    " + m + "\n")
			}
			if side == "on" {
				fmt.Fprintf(&tasks, "    %s = %s\n", p.name, p.on)
			}
			tasks.WriteString("  }\n}\n")
		}
	}
	configure(t, "probes", tasks.String())

	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "switch\tvalue\trtask: off\ton\tsystemd: off\ton\t")
	for i, p := range all {
		off, on := probeRun(t, "rtaskctl", "run", fmt.Sprintf("probe-%d-off", i)), probeRun(t, "rtaskctl", "run", fmt.Sprintf("probe-%d-on", i))
		sysOff, sysOn := systemdRun(t, p, false), "-"
		if p.systemd != "" {
			sysOn = systemdRun(t, p, true)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.name, p.on, off, on, sysOff, sysOn, p.differs)
		if off == "cannot" && sysOff == "cannot" {
			t.Logf("%s = %s cannot be tried on this machine: it does not work with the switch off either", p.name, p.on)
			continue
		}
		if off != "can" || on != "cannot" {
			t.Errorf("%s = %s: the probe %s with the switch off and %s with it on", p.name, p.on, off, on)
		}
		if p.systemd != "" && p.differs == "" && (off != sysOff || on != sysOn) {
			t.Errorf("%s = %s: rtask %s and %s, systemd %s and %s", p.name, p.on, off, on, sysOff, sysOn)
		}
	}
	_ = w.Flush() // it goes to memory
	t.Logf("\n%s", table.String())
}

func systemdRun(t *testing.T, p probe, on bool) string {
	args := []string{"--wait", "--quiet", "--pipe", "--collect"}
	user := p.user
	if user == "" {
		user = "bob"
	}
	args = append(args, "--uid="+user)
	for _, m := range p.moreSystemd {
		args = append(args, "-p", m)
	}
	if on {
		args = append(args, "-p", p.systemd)
	}
	return probeRun(t, "systemd-run", append(args, "/bin/sh", "-c", p.script)...)
}

// probeRun says whether a command ended with 0.
func probeRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err == nil {
		return "can"
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, "setup:") || strings.Contains(text, "there is no task") || strings.Contains(text, "configuration") {
		t.Errorf("%s %q: %v: %s", name, args, err, text)
		return "error"
	}
	t.Logf("%s %.80q: %v: %.200s", name, args, err, text)
	return "cannot"
}

func sh(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("/bin/bash", "-c", "set -e\n"+script)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	f, err := os.CreateTemp(t.TempDir(), "out") // what a script leaves running has it, and nobody waits for that
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Run(); err != nil {
		out, _ := os.ReadFile(f.Name())
		t.Fatalf("%v: %s", err, out)
	}
}
