// Package machine answers what a configuration asks of the machine that it is checked on: accounts, folders, programs, files
// with secrets. It looks, and runs nothing.
//
// The engine and rtaskctl use it, so that a check without an engine says what the engine would say.
package machine

import (
	"fmt"
	"os"
	"os/user"

	"github.com/rtask/rtask/daemon/config"
)

// Ask returns opts with everything in it that is asked of this machine. Files of root and owner are trusted.
func Ask(opts config.Options, owner int) config.Options {
	opts.OwnerUID = owner
	opts.LookupUser, opts.LookupGroup, opts.StatDir = lookupUser, lookupGroup, isDir
	opts.CheckEnvironmentFile = func(path string) error {
		_, err := config.ReadEnvironmentFile(path, owner)
		return err
	}
	opts.ReadSecret = config.SecretReader(owner)
	return opts
}

func lookupUser(name string) error {
	_, err := user.Lookup(name)
	return err
}

func lookupGroup(name string) error {
	_, err := user.LookupGroup(name)
	return err
}

func isDir(path string) error {
	fi, err := os.Stat(path)
	if err == nil && !fi.IsDir() {
		err = fmt.Errorf("%s is not a folder", path)
	}
	return err
}
