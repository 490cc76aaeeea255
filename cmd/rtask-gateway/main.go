// Command rtask-gateway serves rtask's HTTP API and metrics, without privileges. See rtask-gateway(8).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/gateway"
	"github.com/rtask/rtask/daemon/logging"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	app := &cli.App{
		Name:            "rtask-gateway",
		Usage:           "serve the HTTP API of rtask",
		Version:         version,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "engine", Value: "/run/rtask/gateway.sock", Usage: "connect to rtaskd at `SOCKET`"},
			&cli.StringFlag{Name: "api-address", Usage: "serve the API at `HOST:PORT` if systemd passes no socket named api"},
			&cli.StringFlag{Name: "https-address", Usage: "serve the API over TLS at `HOST:PORT` if systemd passes no socket named https"},
			&cli.BoolFlag{Name: "https-stdin", Usage: "read certificate and key from standard input, not from systemd's credentials https.cert and https.key"},
			&cli.StringFlag{Name: "remote-address", Usage: "serve clients with certificates at `HOST:PORT` if systemd passes no socket named remote"},
			&cli.BoolFlag{Name: "remote-fd", Usage: "read the key of remote-address, and a certificate, from file descriptor 3, not from systemd's credentials remote.key and remote.cert"},
			&cli.StringFlag{Name: "metrics-address", Usage: "serve the metrics at `HOST:PORT` if systemd passes no socket named metrics"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("unexpected argument %q", c.Args().First())
			}
			o := gateway.Options{
				Engine: c.String("engine"), APIAddress: c.String("api-address"), HTTPSAddress: c.String("https-address"),
				RemoteAddress: c.String("remote-address"), MetricsAddress: c.String("metrics-address"), CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"),
				Version: version, Logger: logging.New(os.Stderr, os.Getenv),
			}
			if c.Bool("https-stdin") {
				o.Certificate = os.Stdin
			}
			if c.Bool("remote-fd") {
				o.RemoteKey = os.NewFile(3, "remote.key")
			}
			return gateway.Run(c.Context, o)
		},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "rtask-gateway:", err)
		os.Exit(1)
	}
}
