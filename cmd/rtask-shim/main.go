// Command rtask-shim stays with one job. rtaskd starts it; it is of no use by hand.
package main

import (
	"fmt"
	"os"

	"github.com/rtask/rtask/sandbox/shim"
)

func main() {
	run := shim.Run
	if len(os.Args) == 2 && os.Args[1] == "probe" {
		run = func() error { return shim.Probe(os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rtask-shim:", err)
		os.Exit(1)
	}
}
