//go:build testbed

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReboot boots a virtual machine twice from one disk, with three days between by its clock: schedules are there without anybody
// calling the engine, and what was missed runs once, where the task says so. It is told the same as TestPower.
func TestReboot(t *testing.T) {
	m := &poweredMachine{t: t, disk: filepath.Join(t.TempDir(), "0.img")}
	bind := []string{"--bind-ro", os.Getenv("RTASK_POWER_SOURCE") + ":" + source, "--", source + "/scheduled"}
	for _, args := range [][]string{
		append([]string{"--deb", os.Getenv("RTASK_POWER_DEB")}, append(bind, "before")...),
		append(bind, "after"),
	} {
		m.run(func(line string, _ func()) { t.Log(line) }, args...)
	}
}
