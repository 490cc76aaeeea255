//go:build testbed

// This test runs against the systemd of packaging/testbed, as root.

package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// underSystemd runs each program as a service with the properties of its row and returns how each ended.
func underSystemd(t *testing.T, rows []row, programs []string) []string {
	t.Helper()
	var units []string
	for i, r := range rows {
		unit := fmt.Sprintf("rtask-probe-%d.service", i)
		text := fmt.Sprintf("[Service]\nType=oneshot\nRemainAfterExit=yes\nLimitCORE=0\nExecStart=%s\n%s\n", programs[i], strings.Join(properties(r.policy), "\n"))
		if err := os.WriteFile("/run/systemd/system/"+unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	_ = exec.Command("systemctl", append([]string{"start"}, units...)...).Run() // fails where a probe does
	out, err := exec.Command("systemctl", append([]string{"show", "--value", "-p", "ExecMainCode,ExecMainStatus"}, units...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var ends []string
	for block := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
		var code, status int
		if _, err := fmt.Sscan(block, &code, &status); err != nil {
			t.Fatalf("systemctl show: %q: %v", block, err)
		}
		switch {
		case code == 0:
			t.Fatalf("%s did not run", units[len(ends)])
		case code != 1: // CLD_EXITED
			ends = append(ends, "killed")
			if unix.Signal(status) != unix.SIGSYS {
				ends[len(ends)-1] = unix.SignalName(unix.Signal(status))
			}
		case status == 0:
			ends = append(ends, "done")
		default:
			ends = append(ends, errnoName(status))
		}
	}
	if len(ends) != len(rows) {
		t.Fatalf("%d services, %d ends", len(rows), len(ends))
	}
	return ends
}

// kernelDenies is the first version of systemd whose MemoryDenyWriteExecute= is the kernel's own switch, and unknownIsENOSYS the first
// whose allow lists answer ENOSYS for calls that it does not know.
const (
	kernelDenies    = 254
	unknownIsENOSYS = 257
)

// denied runs a program under the kernel's own switch, as rtask does where systemd does.
func denied(t *testing.T, program string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestDenied$")
	cmd.Env = []string{"SECCOMP_PROBE=" + program}
	return outcome(t, cmd.Run())
}

// TestDenied becomes the program that denied names.
func TestDenied(t *testing.T) {
	program := os.Getenv("SECCOMP_PROBE")
	if program == "" {
		return
	}
	if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Fatal(unix.Exec(program, []string{program}, nil))
}

// TestSystemd tries each call under the same switches of systemd and of this package, and without any, and prints the table.
func TestSystemd(t *testing.T) {
	version, err := exec.Command("systemctl", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscanf(string(version), "systemd %d", &number); err != nil {
		t.Fatalf("%q: %v", version, err)
	}
	_, err = unix.PrctlRetInt(unix.PR_GET_MDWE, 0, 0, 0, 0)
	mdwe := err == nil && number >= kernelDenies
	var tried []row
	var programs, free []string
	for _, r := range rows() {
		without := unconfined(t, r.probe)
		if why := missing(r, without); why != "" {
			t.Logf("not tried: %s: %v: %s", strings.Join(properties(r.policy), " "), r.probe, why)
			continue
		}
		tried, programs, free = append(tried, r), append(programs, r.probe.program(t, nil)), append(free, without)
	}
	systemd := underSystemd(t, tried, programs)

	var table strings.Builder
	line := func(switches string, columns ...string) {
		fmt.Fprintf(&table, "%-80.80s", switches)
		for _, c := range columns {
			fmt.Fprintf(&table, " | %-12s", c)
		}
		table.WriteString("\n")
	}
	line("switches: call", "systemd", "rtask", "no filter", "")
	same, different, anyway := 0, 0, 0
	for i, r := range tried {
		got, note := confined(t, r.policy, r.probe), r.why
		if r.policy.MemoryDenyWriteExecute && mdwe {
			rest := r.policy
			rest.MemoryDenyWriteExecute = false
			got, note = denied(t, r.probe.program(t, compiled(t, rest, x86_64))), "PR_SET_MDWE"
			r.want, r.systemd = got, ""
		}
		if r.why == newer && number >= unknownIsENOSYS {
			r.systemd, note = "", ""
		}
		if got == free[i] && systemd[i] == got && r.want != "done" {
			note = "the same without a filter"
			anyway++
		}
		line(fmt.Sprintf("%s: %v", strings.Join(properties(r.policy), " "), r.probe), systemd[i], got, free[i], note)
		want := r.systemd
		switch want {
		case "":
			want = got
		case asFree:
			want = free[i]
		}
		if systemd[i] != want {
			t.Errorf("%v: %v: %s under systemd, not %s", properties(r.policy), r.probe, systemd[i], want)
		}
		if got != r.want {
			t.Errorf("%v: %v: %s under rtask, not %s", properties(r.policy), r.probe, got, r.want)
		}
		if systemd[i] == got {
			same++
		} else {
			different++
		}
	}
	t.Logf("%s\n%s%d the same, %d different; %d would be the same without a filter", strings.SplitN(string(version), "\n", 2)[0], table.String(), same, different, anyway)
}
