package config

import "github.com/rtask/rtask/sandbox/spec"

// Exposure is how much a sandbox leaves open, in the manner of systemd-analyze(1) security: of each row the weight that
// systemd gives it, and how much of it is open.
type Exposure struct {
	// Score is from 0, nothing is open, to 10, everything is.
	Score float64
	Rows  []ExposureRow
}

// ExposureRow is one thing that may be open.
type ExposureRow struct {
	// Name is the switch, or user.
	Name string
	// About says what is open or closed.
	About string
	// Exposure is its part of the score; 0: it is closed.
	Exposure float64
}

// Word is what systemd-analyze calls a score.
func (e Exposure) Word() string {
	for _, one := range []struct {
		from float64
		word string
	}{{9.5, "DANGEROUS"}, {9, "UNSAFE"}, {7, "EXPOSED"}, {4.5, "MEDIUM"}, {1, "OK"}, {0.1, "SAFE"}} {
		if e.Score >= one.from {
			return one.word
		}
	}
	return "PERFECT"
}

// ExposureOf returns the exposure of jobs with s, which run as root or not. Rows are in the order of the manual.
func ExposureOf(s spec.Sandbox, root bool) Exposure {
	asRoot := opening{2000, "It runs as a non-root user", "It runs as root", unless(func(*spec.Sandbox) bool { return !root })}
	all := append([]sandboxSwitch{{attribute: attribute[spec.Sandbox]{name: "user"}, openings: []opening{asRoot}}}, sandboxSwitches()...)
	var e Exposure
	var weights, open float64
	for _, one := range all {
		for _, o := range one.openings {
			row := ExposureRow{Name: one.name, About: o.closed, Exposure: 10 * o.weight * o.open(&s)}
			if row.Exposure > 0 {
				row.About = o.opened
			}
			weights += o.weight
			open += row.Exposure
			e.Rows = append(e.Rows, row)
		}
	}
	for i := range e.Rows {
		e.Rows[i].Exposure /= weights
	}
	e.Score = open / weights
	return e
}
