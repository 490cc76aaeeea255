package ctl

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/fetch"
)

// Where the unit rtask-provider.service finds and leaves things.
const (
	providersWanted = "/run/rtask/providers.json"
	providersFolder = "/var/lib/rtask-provider"
)

// fetchedJSON is what became of one provider.
type fetchedJSON struct {
	Provider string `json:"provider"`
	Keys     int    `json:"keys"`
	Error    string `json:"error,omitempty"`
}

func (a *app) providerCommand() *cli.Command {
	return &cli.Command{
		Name: "provider", Usage: "list the OpenID providers, and fetch their keys", UsageText: "rtaskctl provider list|fetch",
		Subcommands: []*cli.Command{
			{
				Name: "fetch", Usage: "fetch the public keys of the providers", UsageText: "rtaskctl provider fetch [--from FILE] [--to FOLDER] [--json]",
				Description: "rtask-provider.service does this every 15 minutes, since the engine has no network: systemctl start rtask-provider.service.\n" +
					"A proxy is used if HTTPS_PROXY names one.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "from", Usage: "the `FILE` in which the engine names the providers (default: " + providersWanted + ")"},
					&cli.StringFlag{Name: "to", Usage: "the `FOLDER` for the keys (default: $STATE_DIRECTORY, else " + providersFolder + ")"},
					jsonFlag(),
				},
				Action: a.providerFetch,
			},
		},
	}
}

func (a *app) providerFetch(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	from, to := c.String("from"), c.String("to")
	if from == "" {
		from = providersWanted
	}
	if to == "" {
		to = a.env.get("STATE_DIRECTORY") // systemd.exec(5), RuntimeDirectory=
	}
	if to == "" {
		to = providersFolder
	}
	results, err := fetch.Run(c.Context, from, to)
	if err != nil {
		return err
	}
	failed := 0
	rows := []fetchedJSON{}
	for _, r := range results {
		row := fetchedJSON{Provider: r.Name, Keys: r.Keys}
		if r.Err != nil {
			failed++
			row.Error = r.Err.Error()
		}
		rows = append(rows, row)
	}
	if c.Bool("json") {
		err = a.printJSON(rows)
	} else {
		for _, r := range rows {
			line := fmt.Sprintf("%s: %s\n", printable(r.Provider), plural(int32(r.Keys), "key"))
			if r.Error != "" {
				line = fmt.Sprintf("%s: %s\n", printable(r.Provider), oneLine(r.Error))
			}
			err = errors.Join(err, a.print(line))
		}
	}
	if err == nil && failed > 0 {
		return fmt.Errorf("cannot fetch the keys of %d of %d providers", failed, len(rows))
	}
	return err
}
