package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// row is one line of the table.
type row struct {
	Section string `json:"section"`
	What    string `json:"what"`
	Unit    string `json:"unit"`
	// Rtask and Peer are what was measured; Peer is 0 and PeerName empty where there is nothing to compare with.
	Rtask    float64 `json:"rtask"`
	Peer     float64 `json:"peer,omitempty"`
	PeerName string  `json:"peer_name,omitempty"`
	// Ratio says how many times as good as the peer rtask is: above 1 it is better. 0: there is none.
	Ratio float64 `json:"ratio,omitempty"`
	// Aim is what the figure should come to, in words.
	Aim string `json:"aim,omitempty"`
}

// rate is a row of which more is better.
func rate(section, what, unit string, ours, theirs float64, peer string) row {
	return row{Section: section, What: what, Unit: unit, Rtask: ours, Peer: theirs, PeerName: peer, Ratio: ours / theirs}
}

// cost is a row of which less is better.
func cost(section, what, unit string, ours, theirs float64, peer string) row {
	return row{Section: section, What: what, Unit: unit, Rtask: ours, Peer: theirs, PeerName: peer, Ratio: theirs / ours}
}

// aiming returns the row with an aim.
func (r row) aiming(aim string) row {
	r.Aim = aim
	return r
}

func printTable(w io.Writer, m *machine, rows []row) error {
	fmt.Fprintln(w)
	for _, n := range m.notes() {
		fmt.Fprintln(w, n)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	last := ""
	for _, r := range rows {
		if r.Section != last {
			fmt.Fprintf(t, "\n%s\trtask\tpeer\t\tratio\taim\n", r.Section)
			last = r.Section
		}
		peer, ratio := "", ""
		if r.PeerName != "" {
			peer, ratio = number(r.Peer), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(t, "  %s, %s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.Unit, number(r.Rtask), peer, r.PeerName, ratio, r.Aim)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot print the table: %w", err)
	}
	return nil
}

// head is that of the table in docs/benchmarks.md.
const head = "| what | unit | rtask | peer | ratio | aim |\n|---|---|---|---|---|---|\n"

// documented returns the rows that docs/benchmarks.md has, each as section, what and unit. The others tell where a figure comes from.
func documented() [][3]string {
	return [][3]string{
		{"HTTP, blocking /bin/true", "1 client", "requests/s"},
		{"HTTP, blocking /bin/true", "4 clients", "requests/s"},
		{"HTTP, blocking /bin/true", "16 clients", "requests/s"},
		{"CPU for a blocking request", "16 clients: all", "µs"},
		{"Webhook, signed push of 20 KB with a condition, 4 clients", "it runs /bin/true", "requests/s"},
		{"Webhook, signed push of 20 KB with a condition, 4 clients", "the condition is false", "requests/s"},
		{"CPU for a webhook's request", "it runs /bin/true: all", "µs"},
		{"CPU for a webhook's request", "the condition is false: all", "µs"},
		{"On the command line", "rtaskctl run COMMAND", "p50 ms"},
		{"On the command line", "rtaskctl run TASK", "p50 ms"},
		{"Start to first instruction", "cold slot, from the call of Start", "p50 ms"},
		{"Start to first instruction", "warm slot, from the call of Start", "p50 ms"},
		{"Start to first instruction", "warm slot, profile default", "p50 ms"},
		{"Output to one follower", "cat", "MB/s"},
		{"Output to one follower", "cat, journal = false", "MB/s"},
		{"Output to one follower", "seq, journal = false", "MB/s"},
		{"Calls from another machine, Tasks", "connection, handshake and first call", "p50 ms"},
		{"Calls from another machine, Tasks", "on a warm connection", "p50 ms"},
		{"Streams from another machine", "growth of the gateway for 200", "KiB"},
		{"Memory for a running job", "all that is not shared", "KiB"},
		{"Memory for a running job", "shim, private", "KiB"},
	}
}

// ofDocument picks the rows of docs/benchmarks.md.
func ofDocument(rows []row) ([]row, error) {
	var picked []row
	for _, d := range documented() {
		i := slices.IndexFunc(rows, func(r row) bool { return [3]string{r.Section, strings.TrimSpace(r.What), r.Unit} == d })
		if i < 0 {
			return nil, fmt.Errorf("docs/benchmarks.md has a row that was not measured: %q", d)
		}
		picked = append(picked, rows[i])
	}
	return picked, nil
}

// printMarkdown prints what docs/benchmarks.md has between its marks.
func printMarkdown(w io.Writer, m *machine, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s", strings.Join(m.notes(), "\n"), head)
	last := ""
	for _, r := range rows {
		if r.Section != last {
			fmt.Fprintf(&b, "| **%s** | | | | | |\n", r.Section)
			last = r.Section
		}
		peer, ratio := "", ""
		if r.PeerName != "" {
			peer, ratio = fmt.Sprintf("%s (%s)", number(r.Peer), r.PeerName), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", strings.TrimSpace(r.What), r.Unit, number(r.Rtask), peer, ratio, r.Aim)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("cannot print the table: %w", err)
	}
	return nil
}

func printJSON(w io.Writer, m *machine, rows []row) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(map[string]any{"notes": m.notes(), "rows": rows}); err != nil {
		return fmt.Errorf("cannot print the table: %w", err)
	}
	return nil
}

// number prints three digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// percentile returns the value below which p percent of the values are; 0 of none.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(p/100*float64(len(sorted))), len(sorted)-1)]
}

// median returns the middle value.
func median(values []float64) float64 { return percentile(values, 50) }
