// Command rtask-shim stays with one job. rtaskd starts it; it is of no use by hand.
package main

import (
	"fmt"
	"os"

	"github.com/rtask/rtask/sandbox/shim"
)

func main() {
	if err := shim.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "rtask-shim:", err)
		os.Exit(1)
	}
}
