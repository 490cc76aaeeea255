package main

import (
	"context"
	"path/filepath"
)

// programs are what two builds differ in, as the package installs them.
func programs() []string {
	return []string{"/usr/bin/rtaskd", "/usr/bin/rtask-gateway", "/usr/libexec/rtask/rtask-shim"}
}

// measureAgainst compares the processor time for a request of two builds of rtask, which take turns on one machine: of the package
// that is installed, and of the programs in a folder.
func measureAgainst(ctx context.Context, m *machine, rounds int, other string) ([]row, error) {
	const clients, requests = 4, 400
	own := "/var/tmp/bench-own"
	if err := command(ctx, "mkdir", "-p", own); err != nil {
		return nil, err
	}
	for _, p := range programs() {
		if err := install(p, filepath.Join(own, filepath.Base(p))); err != nil {
			return nil, err
		}
	}
	folders := []string{own, other}
	sides := []*side{{url: rtaskURL + "true", groups: rtaskGroups()}, {url: rtaskURL + "true", groups: rtaskGroups()}}
	totals := make([][]float64, len(sides))
	for range rounds {
		for i, s := range sides {
			if err := m.exchange(ctx, folders[i]); err != nil {
				return nil, err
			}
			warm := &side{url: s.url}
			if err := m.turn(ctx, warm, clients, requests/4); err != nil {
				return nil, err
			}
			before := s.cpu.total()
			if err := m.turn(ctx, s, clients, requests); err != nil {
				return nil, err
			}
			totals[i] = append(totals[i], (s.cpu.total()-before)/requests)
		}
	}
	const section, unit, peer = "CPU for a blocking request, 4 clients", "µs", "other build"
	rows := []row{cost(section, "all, median of the rounds", unit, median(totals[0]), median(totals[1]), peer)}
	for _, g := range rtaskGroups() {
		a, b := sides[0].cpu[g.name]/float64(sides[0].served), sides[1].cpu[g.name]/float64(sides[1].served)
		rows = append(rows, cost(section, "  "+g.name+", mean", unit, a, b, peer))
	}
	return rows, nil
}

// exchange puts the programs of a folder in the place of the installed ones, and starts the daemons anew.
func (m *machine) exchange(ctx context.Context, folder string) error {
	if err := command(ctx, "systemctl", "stop", "rtask-gateway.service", "rtask.service", "rtask.slice"); err != nil {
		return err
	}
	for _, p := range programs() {
		if err := install(filepath.Join(folder, filepath.Base(p)), p); err != nil {
			return err
		}
	}
	// Or systemd would refuse to start what was started so often.
	if err := command(ctx, "systemctl", "reset-failed", "rtask.service", "rtask-gateway.service"); err != nil {
		return err
	}
	return m.ready(ctx, rtaskURL+"true")
}
