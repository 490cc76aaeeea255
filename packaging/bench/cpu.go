package main

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
)

// controlGroup is where the processor time of a part is counted. The kernel counts it in every control group, with or
// without the cpu controller, and those that are gone count in their parents (cgroup v2, cpu.stat).
type controlGroup struct {
	name, path string
}

// systemGroups are what works for whoever asks for a scope or writes to the journal.
func systemGroups() []controlGroup {
	return []controlGroup{
		{"PID 1", "/init.scope"},
		{"D-Bus", "/system.slice/dbus.service"},
		{"journald", "/system.slice/systemd-journald.service"},
		{"logind", "/system.slice/systemd-logind.service"},
	}
}

// rtaskGroups count the start of a shim with the engine: it is in the engine's group until systemd has moved it.
func rtaskGroups() []controlGroup {
	return append([]controlGroup{
		{"gateway", "/system.slice/rtask-gateway.service"},
		{"engine, with shims until they are in their scope", "/system.slice/rtask.service"},
		{"shim and job", "/rtask.slice"},
	}, systemGroups()...)
}

func webhookGroups() []controlGroup {
	return append([]controlGroup{{"webhook and job", "/system.slice/webhook.service"}}, systemGroups()...)
}

// usage is processor time by part, in microseconds.
type usage map[string]float64

func use(groups []controlGroup) (usage, error) {
	u := usage{}
	for _, g := range groups {
		b, err := os.ReadFile("/sys/fs/cgroup" + g.path + "/cpu.stat")
		if os.IsNotExist(err) {
			continue // nothing of it has run
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read processor time: %w", err)
		}
		_, after, _ := strings.Cut(string(b), "usage_usec ")
		value, _, _ := strings.Cut(after, "\n")
		if u[g.name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("cannot read the processor time of %s: %w", g.path, err)
		}
	}
	return u, nil
}

func (u usage) plus(other usage) usage {
	sum := usage{}
	maps.Copy(sum, u)
	for k, v := range other {
		sum[k] += v
	}
	return sum
}

func (u usage) minus(other usage) usage {
	rest := usage{}
	for k, v := range u {
		rest[k] = v - other[k]
	}
	return rest
}

func (u usage) total() float64 {
	var sum float64
	for _, v := range u {
		sum += v
	}
	return sum
}

// cpuRows are the costs of a request: of all, and by part.
func cpuRows(section, who string, ours, theirs *side) []row {
	const unit = "µs"
	rows := []row{cost(section, who+": all", unit, ours.perRequest(), theirs.perRequest(), "webhook")}
	for _, g := range ours.groups {
		r := row{Section: section, What: "  " + g.name, Unit: unit, Rtask: ours.cpu[g.name] / float64(ours.served)}
		rows = append(rows, r)
	}
	return rows
}
