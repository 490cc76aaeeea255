package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const heyHead = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset\n"

func TestReadHey(t *testing.T) {
	out := heyHead + "0.0100,0,0,0,0.0100,0,200,0.0000\n0.0300,0,0,0,0.0300,0,200,0.0700\n"
	l, err := readHey(out, 2)
	if err != nil || l.rate != 20 || l.p50 != 30 || l.p99 != 30 {
		t.Errorf("%+v, %v", l, err)
	}
	for name, wrong := range map[string]string{
		"a reply was 500":               strings.Replace(out, "200,0.07", "500,0.07", 1),
		"1 of 2 requests were answered": heyHead + "0.01,0,0,0,0.01,0,200,0.0\n",
		"0 of 2 requests were answered": heyHead,
		"cannot read what hey printed":  "",
	} {
		if _, err := readHey(wrong, 2); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v instead of %q", err, name)
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 50: 3, 99: 5, 100: 5} {
		if got := percentile(values, p); got != want {
			t.Errorf("%v %%: %v instead of %v", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("a percentile of nothing")
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	rows := []row{
		rate("speed", "copy", "MB/s", 50, 200, "cat").aiming("≥ 0.5"),
		cost("speed", "wait", "ms", 4, 2, "cat"),
		{Section: "size", What: "all", Unit: "KiB", Rtask: 1234},
	}
	if err := printTable(&b, &machine{}, rows); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(b.String(), "\nspeed")
	want := `           rtask  peer       ratio  aim
  copy, MB/s    50.0   200   cat  0.25   ≥ 0.5
  wait, ms      4.00   2.00  cat  0.50   
`
	if !strings.Contains(strings.ReplaceAll(table, " ", ""), strings.ReplaceAll(want, " ", "")) || !strings.Contains(table, "1234") {
		t.Errorf("%s", b.String())
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	rows := []row{rate("speed", "copy", "MB/s", 50, 200, "cat").aiming("≥ 0.5"), {Section: "size", What: "  all", Unit: "KiB", Rtask: 1234}}
	if err := printMarkdown(&b, &machine{}, rows); err != nil {
		t.Fatal(err)
	}
	want := head + "| **speed** | | | | | |\n| copy | MB/s | 50.0 | 200 (cat) | 0.25 | ≥ 0.5 |\n| **size** | | | | | |\n| all | KiB | 1234 |  |  |  |\n"
	if _, table, _ := strings.Cut(b.String(), "\n\n"); table != want {
		t.Errorf("%s", b.String())
	}
}

// TestOfDocument: each row of the document must have been measured, and no other is picked.
func TestOfDocument(t *testing.T) {
	var rows []row
	for _, d := range documented() {
		rows = append(rows, row{Section: d[0], What: "  " + d[1], Unit: "p99 " + d[2]}, row{Section: d[0], What: "  " + d[1], Unit: d[2]})
	}
	picked, err := ofDocument(rows)
	if err != nil || len(picked) != len(documented()) {
		t.Fatalf("%d rows, %v", len(picked), err)
	}
	for i, r := range picked {
		if d := documented()[i]; r.Section != d[0] || r.Unit != d[2] {
			t.Errorf("row %d is %+v, want %q", i, r, d)
		}
	}
	if _, err := ofDocument(rows[2:]); err == nil {
		t.Error("a row that was not measured is not missed")
	}
}

// TestDocument: docs/benchmarks.md has a table that run --document can replace, in the form in which it would, and with the same rows.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, began := strings.Cut(string(b), "\n<!-- written by packaging/bench/run --document -->\n")
	block, _, ended := strings.Cut(rest, "\n<!-- end -->\n")
	_, table, found := strings.Cut(block, head)
	if !began || !ended || !found {
		t.Fatal("it has no marks, or no table between them")
	}
	line := regexp.MustCompile(`^\|( \*\*[^|*]+\*\* \|( \|){5}|( [^|*]+ \|){2} [0-9.]+ \| ([0-9.]+ \([^|]+\))? \| ([0-9.]+)? \| [^|]* ?\|)$`)
	var got [][3]string
	section := ""
	for l := range strings.Lines(table + "\n") {
		if !line.MatchString(strings.TrimSpace(l)) {
			t.Errorf("no row of a table: %q", l)
			continue
		}
		if name, found := strings.CutPrefix(l, "| **"); found {
			section, _, _ = strings.Cut(name, "**")
			continue
		}
		cells := strings.Split(l, " | ")
		got = append(got, [3]string{section, strings.TrimPrefix(cells[0], "| "), cells[1]})
	}
	if !slices.Equal(got, documented()) {
		t.Errorf("it has the rows\n%q, want\n%q", got, documented())
	}
}
