package ctl

import (
	"github.com/urfave/cli/v2"
)

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version of rtaskctl", UsageText: "rtaskctl version [--json]",
		Description: "rtaskctl doctor shows the version of the engine.",
		Flags:       []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return a.result(c, map[string]string{"version": a.env.Version}, "rtaskctl "+a.env.Version+"\n")
		},
	}
}
