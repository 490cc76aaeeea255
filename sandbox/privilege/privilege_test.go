package privilege

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHas agrees with what /proc says, in hexadecimal.
func TestHas(t *testing.T) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "CapEff:\t")
	line, _, _ := strings.Cut(after, "\n")
	effective, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if want := effective>>c&1 != 0; Has(c) != want {
			t.Errorf("capability %d: %v, want %v", c, !want, want)
		}
	}
}

// TestWhatIsTold: what it calls the most can be set, and what is above it cannot. Each is tried in a process of its own.
func TestWhatIsTold(t *testing.T) {
	nice, err := LowestNice()
	if err != nil {
		t.Fatal(err)
	}
	score, err := LowestOOMScore()
	if root := os.Geteuid() == 0; root != (err == nil) || !root && !errors.Is(err, ErrOOMScore) {
		t.Fatalf("root %v: error %v", root, err)
	}
	files, filesErr := HighestRLimit(unix.RLIMIT_NOFILE)
	if filesErr != nil {
		t.Fatal(filesErr)
	}
	try := func(script string) bool { return exec.Command("/bin/bash", "-c", script).Run() == nil }
	// nice(1) takes the difference to its own value.
	if !try(fmt.Sprintf("test $(nice -n $((%d - $(nice))) nice) -eq %d", nice, nice)) {
		t.Errorf("a nice value of %d cannot be set", nice)
	}
	if nice > -20 && try(fmt.Sprintf("test $(nice -n $((%d - $(nice))) nice 2>/dev/null) -eq %d", nice-1, nice-1)) {
		t.Errorf("a nice value of %d can be set", nice-1)
	}
	if err == nil && !try(fmt.Sprintf("echo %d >/proc/self/oom_score_adj", score)) {
		t.Errorf("an OOM score of %d cannot be set", score)
	}
	if !try(fmt.Sprintf("ulimit -n %d", files)) {
		t.Errorf("a limit of %d open files cannot be set", files)
	}
	if try(fmt.Sprintf("ulimit -n %d", files+1)) {
		t.Errorf("a limit of %d open files can be set", files+1)
	}
}
