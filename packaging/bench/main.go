// Command bench measures the installed rtask beside what people would use instead, and prints one table of ratios. It
// runs in the container of packaging/testbed, as root and on a real systemd; `make bench` takes it there.
//
// The two sides of a row take turns, several rounds long, and medians are shown, so that whatever else the machine does
// hits both. Nothing is asserted: the figures are to be read. A reply or a job that fails ends the program, since a figure of
// failures means nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var o options
	flag.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flag.BoolVar(&o.markdown, "markdown", false, "print the table for docs/benchmarks.md")
	flag.StringVar(&o.only, "only", "", "measure these `sections` only: "+strings.Join(sectionNames(), ","))
	flag.IntVar(&o.rounds, "rounds", 5, "how often the two sides of a row take turns")
	flag.StringVar(&o.against, "against", "", "measure only what a request costs beside the programs in this `folder`, another build of rtask")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	json     bool
	markdown bool
	only     string
	rounds   int
	// against is a folder with programs of another build.
	against string
}

// section is a part of the table.
type section struct {
	name    string
	measure func(context.Context, *machine, int) ([]row, error)
}

// sections are in the order of the table. Memory comes last, because it starts the daemons anew.
func sections() []section {
	return []section{
		{"http", measureHTTP},
		{"webhook", measureWebhook},
		{"run", measureRun},
		{"start", measureStart},
		{"log", measureLog},
		{"remote", measureRemote},
		{"memory", measureMemory},
	}
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func run(ctx context.Context, o options) error {
	if o.markdown && o.only != "" {
		return errors.New("--markdown prints all rows: leave out --only")
	}
	wanted := sectionNames()
	if o.only != "" {
		wanted = strings.Split(o.only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(sectionNames(), name) {
			return fmt.Errorf("there is no section %q; there are %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	if o.rounds < 1 {
		return errors.New("--rounds must be 1 or more")
	}
	m, err := setUp(ctx)
	if err != nil {
		return fmt.Errorf("cannot set up: %w", err)
	}
	if o.against != "" {
		rows, err := measureAgainst(ctx, m, o.rounds, o.against)
		if err != nil {
			return fmt.Errorf("cannot compare two builds: %w", err)
		}
		return printTable(os.Stdout, m, rows)
	}
	var rows []row
	for _, s := range sections() {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: measuring %s\n", s.name)
		more, err := s.measure(ctx, m, o.rounds)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", s.name, err)
		}
		rows = append(rows, more...)
	}
	switch {
	case o.json:
		return printJSON(os.Stdout, m, rows)
	case o.markdown:
		rows, err := ofDocument(rows)
		if err != nil {
			return err
		}
		return printMarkdown(os.Stdout, m, rows)
	}
	return printTable(os.Stdout, m, rows)
}
