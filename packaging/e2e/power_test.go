//go:build testbed

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// powerCuts is how many power cuts TestPower makes, unless RTASK_POWER_CUTS says another number, on so many machines side by
	// side. Each takes about half a minute.
	powerCuts, powerMachines = 4, 2

	// What TestPower tells TestPowered: the number of the boot, how it is to end (powerCut, at any moment; powerDown; or not at
	// all, ""), how the one before ended, whether some boots' load is to be of requests over HTTP, and in the file powerFacts, a
	// line each, the facts.
	powerBoot, powerEnd, powerLast, powerHTTP = "RTASK_POWER_BOOT", "RTASK_POWER_END", "RTASK_POWER_LAST", "RTASK_POWER_HTTP"
	powerCut, powerDown                       = "cut", "down"
	powerFacts                                = "/facts"

	// What TestPowered tells TestPower, each on a line of its own.
	saidUp       = "@up"       // it has begun
	saidAccepted = "@accepted" // the fact that an id was handed out
	saidEnded    = "@ended"    // the fact that the end of a job was told
	saidWrong    = "@wrong"    // what
	saidChecked  = "@checked"  // all facts were looked at, and what came of it
	saidLoaded   = "@loaded"   // jobs run, and jobs wait
)

// fact is what somebody outside of the machine knows of a job.
type fact struct {
	number  int
	kind    string // a task, "command" or longJobs
	id      string
	boot    int  // in which it was accepted
	http    bool // over HTTP, and there one can ask for it
	ended   bool // its end was told
	checked bool // what became of it was looked at in a later boot
}

func (f fact) String() string {
	return fmt.Sprintf("%d %s %s %d %t %t %t", f.number, f.kind, f.id, f.boot, f.http, f.ended, f.checked)
}

// readFact reads what String gives.
func readFact(s string) (f fact, err error) {
	_, err = fmt.Sscan(s, &f.number, &f.kind, &f.id, &f.boot, &f.http, &f.ended, &f.checked)
	return f, err
}

// readFacts reads a file of them.
func readFacts(path string) ([]fact, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var facts []fact
	for line := range strings.Lines(string(b)) {
		f, err := readFact(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// TestPower cuts the power of virtual machines under load: it ends qemu with SIGKILL at random moments, and boots the machine
// again from the same disk. In that boot TestPowered looks at what became of the jobs whose ids had been handed out, and puts
// the next load on it. What it knows of them it was told before the cut, through a port of the machine, so no cut can take
// that back. At last one machine is shut down with jobs running, as for a reboot.
//
// It runs on this machine, needs root, and is told by RTASK_POWER_DEB which package to install and by RTASK_POWER_SOURCE what
// folder to show the machine: TestPowered's program and testdata/power.
func TestPower(t *testing.T) {
	cuts := powerCuts
	if text := os.Getenv("RTASK_POWER_CUTS"); text != "" {
		var err error
		if cuts, err = strconv.Atoi(text); err != nil || cuts < powerMachines {
			t.Fatalf("RTASK_POWER_CUTS must be a number from %d on, not %q", powerMachines, text)
		}
	}
	dir := t.TempDir()
	first := &poweredMachine{t: t, disk: filepath.Join(dir, "0.img")}
	first.run(nil, "--deb", os.Getenv("RTASK_POWER_DEB"), "--bind-ro", os.Getenv("RTASK_POWER_SOURCE")+":"+source, "--", source+"/prepare")
	for i := range powerMachines {
		disk := filepath.Join(dir, fmt.Sprintf("%d.img", i))
		if i > 0 {
			if out, err := exec.Command("cp", "--sparse=always", first.disk, disk).CombinedOutput(); err != nil {
				t.Fatalf("cannot copy the disk: %v: %s", err, out)
			}
		}
		t.Run(fmt.Sprintf("machine %d", i), func(t *testing.T) {
			t.Parallel()
			m := &poweredMachine{t: t, disk: disk, http: i%2 == 1}
			for cut := range cuts / powerMachines {
				m.cut(cut%5 == 1)
			}
			if i == 0 {
				m.end(powerDown)
			}
			m.end("")
		})
	}
}

// poweredMachine is a machine of TestPower.
type poweredMachine struct {
	t     *testing.T
	disk  string
	http  bool // is the load of its first boot, and of every fifth after that
	boot  int
	last  string // how the last boot ended
	facts []fact
}

// cut boots the machine and cuts its power at a random moment: under load, or, early, while the engine takes up what the last
// one left.
func (m *poweredMachine) cut(early bool) {
	m.t.Helper()
	word, within := saidLoaded, 3*time.Second
	if early {
		word, within = saidUp, time.Second
	}
	m.powered(powerCut, func(said string, cut func()) {
		if said == word {
			time.AfterFunc(rand.N(within), cut)
		}
	})
}

// end boots the machine and lets TestPowered come to its end, and then shuts it down.
func (m *poweredMachine) end(end string) {
	m.t.Helper()
	m.powered(end, func(string, func()) {})
}

// powered boots the machine with TestPowered in it, calls heard with what that says and what cuts the power, and takes up what
// it told.
func (m *poweredMachine) powered(end string, heard func(said string, cut func())) {
	m.t.Helper()
	m.boot++
	var file strings.Builder
	for _, f := range m.facts {
		fmt.Fprintln(&file, f)
	}
	facts := filepath.Join(m.t.TempDir(), "facts")
	if err := os.WriteFile(facts, []byte(file.String()), 0o644); err != nil {
		m.t.Fatal(err)
	}
	begin := time.Now()
	var wrong []string
	checked, accepted, ended := "nothing was looked at", 0, 0
	m.run(func(line string, cut func()) {
		word, what, _ := strings.Cut(line, " ")
		switch word {
		case saidAccepted, saidEnded:
			f, err := readFact(what)
			if err != nil {
				wrong = append(wrong, fmt.Sprintf("%q: %v", line, err))
				return
			}
			if word == saidAccepted {
				accepted++
				m.facts = append(m.facts, f)
				return
			}
			for i := range m.facts {
				if m.facts[i].id == f.id {
					m.facts[i].ended = true
					ended++
				}
			}
		case saidWrong:
			wrong = append(wrong, what)
		case saidChecked:
			checked = what
			for i := range m.facts {
				m.facts[i].checked = m.facts[i].checked || m.facts[i].boot < m.boot
			}
		case saidUp, saidLoaded:
		default:
			m.t.Logf("boot %d: %s", m.boot, line)
			return
		}
		heard(word, cut)
	}, "--bind-ro", facts+":"+powerFacts, "--env", fmt.Sprintf("%s=%d", powerBoot, m.boot), "--env", powerEnd+"="+end,
		"--env", powerLast+"="+m.last, "--env", fmt.Sprintf("%s=%t", powerHTTP, m.http), "--", poweredDir+"/e2e.test", "-test.run", "^TestPowered$")
	m.last = end
	m.t.Logf("boot %d: %s; then %d jobs accepted, %d of them ended; %v", m.boot, checked, accepted, ended, time.Since(begin).Round(100*time.Millisecond))
	if len(wrong) > 0 {
		m.t.Fatalf("%d wrong:\n%s", len(wrong), strings.Join(wrong[:min(20, len(wrong))], "\n"))
	}
}

// run runs a command in the machine, and calls heard with each line of its output and what cuts the power. Without a cut the
// command must succeed.
func (m *poweredMachine) run(heard func(line string, cut func()), args ...string) {
	m.t.Helper()
	cmd := exec.Command("../testbed/testbed", append([]string{"vm", "run", "--cpus", "1", "--disk", m.disk, "--timeout", "900"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	// qemu is told by the kernel to end with the testbed, with SIGKILL, and the end of the output is the end of qemu.
	var cut atomic.Bool
	in := bufio.NewReader(stdout)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // half a line was cut off
		}
		if err != nil {
			m.t.Error(err)
			break
		}
		if heard != nil {
			heard(strings.TrimSuffix(line, "\n"), func() {
				cut.Store(true)
				_ = cmd.Process.Kill()
			})
		}
	}
	if err := cmd.Wait(); err != nil && !cut.Load() {
		m.t.Fatalf("%q: %v\n%s", cmd.Args, err, stderr.String())
	}
}
