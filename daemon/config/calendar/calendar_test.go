package calendar

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rtask/rtask/daemon/config"
)

// What systemd-analyze takes, and what it does not, is told apart, event by event and in their order.
func TestAsk(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/Caracas"} {
		t.Run(zone, func(t *testing.T) {
			t.Setenv("TZ", zone)
			events := []string{"Mon..Fri 03:00", "foo%", "hourly", "2020-01-01", "--version", "*-*-* 25:00", "*-*-01 04:30 Europe/Berlin", "daily; rm"}
			wrong := map[int]bool{1: true, 4: true, 5: true, 7: true}
			got := Ask(events)
			if len(got) != len(events) {
				t.Fatalf("%d answers", len(got))
			}
			for i, a := range got {
				if (a.Err != nil) != wrong[i] {
					t.Errorf("%q: %v", events[i], a.Err)
				}
				if some := !wrong[i] && events[i] != "2020-01-01"; some != a.Next.After(time.Now()) {
					t.Errorf("%q comes at %v", events[i], a.Next)
				}
			}
			if next := got[6].Next.UTC(); next.Minute() != 30 || next.Hour() != 3 && next.Hour() != 2 {
				t.Errorf("04:30 in Berlin is %v", next)
			}
		})
	}
	if err := Ask([]string{"foo"})[0].Err; err == nil || !strings.Contains(err.Error(), "Invalid argument") {
		t.Errorf("%v", err)
	}
}

// More events than one command line takes.
func TestAskMany(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	var events []string
	for range 3 * atOnce {
		events = append(events, strings.Repeat("Mon,", 50)+"Tue 03:00")
	}
	events = append(events, "nonsense")
	for i, a := range Ask(events) {
		if (a.Err != nil) != (events[i] == "nonsense") {
			t.Fatalf("%d: %v", i, a.Err)
		}
	}
}

func TestAskWithoutSystemd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if a := Ask([]string{"hourly", "daily"}); len(a) != 2 || !errors.Is(a[0].Err, config.ErrUnchecked) || !errors.Is(a[1].Err, config.ErrUnchecked) {
		t.Errorf("%v", a)
	}
}
