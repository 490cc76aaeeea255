package ctl

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// gap is between two columns of a table, indent before a cell that stands below its row.
const (
	gap    = "  "
	indent = "    "
)

// usualWidth is how wide a terminal is that does not tell, and help that goes elsewhere, in columns.
const usualWidth = 80

// column is a column of a table, and what becomes of it on a terminal that is too narrow. Elsewhere a table is as wide as it has to be.
type column struct {
	name string
	// least is to how many characters its cells may be cut; 0: they never are.
	least int
	// drop is when it is left out, 1 first; 0: never.
	drop int
	// below has its cells stand in full on lines of their own, each below the rest of its row.
	below bool
}

// named are columns that stay as they are.
func named(names ...string) []column {
	all := make([]column, len(names))
	for i, name := range names {
		all[i].name = name
	}
	return all
}

// width is how many columns the terminal has that standard output is: COLUMNS if that is set, as for ps(1); 0 if it is none. What goes
// to a file or another program is never cut, whatever COLUMNS says: it may be set in the environment of a service.
func (a *app) width() int {
	f, ok := a.stdout.(*os.File)
	if !ok || !isTerminal(f) {
		return 0
	}
	if n, err := strconv.Atoi(a.env.get("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	return usualWidth
}

// The widths of columns that are not shown.
const (
	leftOut  = -1
	putBelow = -2
)

// fit returns how wide each column is in total columns of a terminal, 0: as many as there are. Natural are the widths that they need,
// empty those that have no cell but the first.
func fit(columns []column, natural []int, empty []bool, total int) []int {
	widths := slices.Clone(natural)
	if total <= 0 || lineWidth(widths) <= total {
		return widths
	}
	for i := range widths {
		if empty[i] {
			widths[i] = leftOut
		}
	}
	if lineWidth(widths) <= total {
		return widths
	}
	for i, c := range columns {
		if c.below && widths[i] >= 0 {
			widths[i] = putBelow
		}
	}
	for next := 1; ; next++ {
		if cut := narrowed(columns, widths, total); lineWidth(cut) <= total || next > len(columns) {
			return cut
		}
		for i, c := range columns {
			if c.drop == next {
				widths[i] = leftOut
			}
		}
	}
}

// narrowed cuts the widest columns that may be cut until they fit, or none can be cut further.
func narrowed(columns []column, widths []int, total int) []int {
	widths = slices.Clone(widths)
	for lineWidth(widths) > total {
		widest := -1
		for i, c := range columns {
			if c.least > 0 && widths[i] > c.least && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// lineWidth is how long a row is.
func lineWidth(widths []int) int {
	n := -len(gap)
	for _, w := range widths {
		if w >= 0 {
			n += w + len(gap)
		}
	}
	return n
}

// row is a line of a table, and the lines below it. Cells are printable.
func row(columns []column, widths []int, cells []string, total int) string {
	var line, under strings.Builder
	for i, cell := range cells {
		switch {
		case widths[i] == putBelow && cell != "":
			under.WriteString(wrap(indent+cell, max(total, usualWidth/2)) + "\n")
		case widths[i] < 0:
		default:
			if cell == "" {
				cell = "-"
			}
			if columns[i].least > 0 {
				cell = shortened(cell, widths[i])
			}
			fmt.Fprintf(&line, "%-*s"+gap, widths[i], cell)
		}
	}
	return strings.TrimRight(line.String(), " ") + "\n" + under.String()
}

// table prints rows of cells under a header, in columns. Cells are made printable.
func (a *app) table(columns []column, rows [][]string) error {
	natural, empty, header := make([]int, len(columns)), make([]bool, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		natural[i], empty[i], header[i] = utf8.RuneCountInString(c.name), len(rows) > 0, c.name
	}
	safe := make([][]string, len(rows))
	for n, cells := range rows {
		safe[n] = make([]string, len(cells))
		for i, cell := range cells {
			safe[n][i] = printable(cell)
			natural[i] = max(natural[i], utf8.RuneCountInString(safe[n][i]))
			empty[i] = empty[i] && cell == ""
		}
	}
	total := a.width()
	widths := fit(columns, natural, empty, total)
	for i := range header {
		if widths[i] == putBelow {
			header[i] = ""
		}
	}
	var b strings.Builder
	b.WriteString(row(columns, widths, header, total))
	for _, cells := range safe {
		b.WriteString(row(columns, widths, cells, total))
	}
	return a.print(b.String())
}

// shortened is a text of so many characters at most.
func shortened(s string, most int) string {
	if runes := []rune(s); len(runes) > most && most > 0 {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// wrap breaks the lines of a text between words, where they are longer than width. What follows is indented as the line itself; where
// that has a name and, two or more spaces behind it, a text, as the text; where it is how to call rtaskctl, a bit further. Words are
// never broken, nor is what stands in brackets.
func wrap(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) > width {
			lines[i] = wrapLine(line, width)
		}
	}
	return strings.Join(lines, "\n")
}

func wrapLine(line string, width int) string {
	rest := strings.TrimLeft(line, " ")
	hang := len(line) - len(rest)
	if strings.HasPrefix(strings.TrimPrefix(rest, usageWord), "rtaskctl ") {
		hang += len(indent)
	} else if at := strings.Index(rest, gap); at > 0 {
		text := strings.TrimLeft(rest[at:], " ")
		hang += utf8.RuneCountInString(rest) - utf8.RuneCountInString(text)
		rest = text
	}
	if hang > width*2/3 {
		hang = width / 3
	}
	var b strings.Builder
	used := utf8.RuneCountInString(line) - utf8.RuneCountInString(rest)
	b.WriteString(line[:len(line)-len(rest)])
	for n, word := range bracketed(rest) {
		size := utf8.RuneCountInString(word)
		switch {
		case n == 0:
		case used+1+size > width:
			b.WriteString("\n" + strings.Repeat(" ", hang))
			used = hang
		default:
			b.WriteString(" ")
			used++
		}
		b.WriteString(word)
		used += size
	}
	return b.String()
}

// bracketed are the words of a text; what stands in brackets is one.
func bracketed(text string) []string {
	var words []string
	open := false
	for word := range strings.SplitSeq(text, " ") {
		if open {
			words[len(words)-1] += " " + word
		} else {
			words = append(words, word)
		}
		last := words[len(words)-1]
		open = strings.Count(last, "[") > strings.Count(last, "]")
	}
	return words
}
