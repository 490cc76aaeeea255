package ctl

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/ctl/fetch"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
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
				Name: "list", Usage: "list the providers, and how old their keys are", UsageText: "rtaskctl provider list [--json]",
				Flags: []cli.Flag{jsonFlag()}, Action: a.providerList,
			},
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

// providerJSON is a provider as --json prints it. What is not known is left out.
type providerJSON struct {
	Name      string `json:"name"`
	Issuer    string `json:"issuer"`
	Bound     bool   `json:"bound"`
	JWKSFile  string `json:"jwks_file,omitempty"`
	Keys      int32  `json:"keys"`
	FetchedAt string `json:"fetched_at,omitempty"`
	Expired   bool   `json:"expired"`
	Problem   string `json:"problem,omitempty"`
}

func providerToJSON(p *rtaskv1.Provider) providerJSON {
	return providerJSON{
		Name: p.GetName(), Issuer: p.GetIssuer(), Bound: p.GetBound(), JWKSFile: p.GetJwksFile(), Keys: p.GetKeys(), FetchedAt: view.Time(p.GetFetchedAt()),
		Expired: p.GetExpired(), Problem: p.GetProblem(),
	}
}

func (a *app) providerList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	r, err := callAuthority(a, c, authority.Providers, &rtaskv1.ProvidersRequest{})
	if err != nil {
		return err
	}
	return listing[*rtaskv1.Provider, providerJSON]{
		view: providerToJSON, none: "There are no providers.",
		header: named("PROVIDER", "KEYS", "FROM", "ISSUER"),
		row: func(p *rtaskv1.Provider) []string {
			if text := p.GetProblem(); text != "" {
				a.say("%s: %s", printable(p.GetName()), oneLine(text))
			}
			from := "never fetched"
			switch {
			case p.GetJwksFile() != "":
				from = p.GetJwksFile()
			case p.GetExpired():
				from = "too old: fetched " + ago(p.GetFetchedAt())
			case p.GetFetchedAt() != nil:
				from = "fetched " + ago(p.GetFetchedAt())
			}
			return []string{p.GetName(), strconv.Itoa(int(p.GetKeys())), from, p.GetIssuer()}
		},
	}.print(a, c, r.GetProviders())
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
