// Command rtaskctl starts, follows and stops jobs of rtaskd. See rtaskctl(1).
package main

import (
	"context"
	"os"

	"github.com/rtask/rtask/ctl"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx := ctl.Interruptible(context.Background())
	env := ctl.Env{Lookup: os.LookupEnv, UID: os.Geteuid(), Version: version}
	os.Exit(ctl.Run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, env))
}
