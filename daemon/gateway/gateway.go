// Package gateway is the network side of rtask, a process of its own without privileges: it does HTTP and nothing else.
// It opens no file, holds no secret and decides nothing: what a stranger presents goes to the engine as it is, and the
// engine's answer goes back.
//
// Only cmd/rtask-gateway imports it.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/rtask/rtask/ctl/client"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	// stopTimeout is how long requests that are under way may take when the gateway stops; the unit's TimeoutStopSec= is
	// longer.
	stopTimeout = 30 * time.Second
)

// Options are a gateway's.
type Options struct {
	// Engine is the path of the engine's socket for gateways.
	Engine string
	// APIAddress and MetricsAddress are host:port to listen on where systemd gives no sockets named "api" and "metrics";
	// empty: not served.
	APIAddress, MetricsAddress string
	Version                    string
	Logger                     *slog.Logger
}

// Run serves until ctx ends, and then what is under way.
func Run(ctx context.Context, o Options) error {
	engine := client.Dial(o.Engine)
	defer engine.Close()
	given, err := activation.ListenersWithNames()
	if err != nil {
		return fmt.Errorf("cannot take over sockets from systemd: %w", err)
	}
	api := newAPI(engine.Gateway, o.Logger)
	var services []service
	for _, s := range []service{
		{name: "api", address: o.APIAddress, handler: api},
		{name: "metrics", address: o.MetricsAddress, handler: newMetrics(engine.Gateway, o.Version)},
	} {
		l, err := listen(ctx, given[s.name], s.address)
		if err != nil && s.name == "metrics" {
			// A port that is taken must not hold back the API.
			o.Logger.Error("metrics are not served", "error", err)
			continue
		}
		if err != nil {
			return errors.Join(err, closeAll(services))
		}
		if l != nil {
			s.listener = l
			services = append(services, s)
		}
	}
	if len(services) == 0 {
		return errors.New("cannot serve: no socket came from systemd, and no --api-address is given")
	}
	return serve(ctx, o, services)
}

// service is a handler behind a listener.
type service struct {
	name, address string
	handler       http.Handler
	listener      net.Listener
}

func closeAll(services []service) error {
	var err error
	for _, s := range services {
		err = errors.Join(err, s.listener.Close())
	}
	return err
}

// listen returns the socket that systemd gave, or opens one. What is served here is not encrypted, so it is for loopback
// and for a proxy on this machine.
func listen(ctx context.Context, given []net.Listener, address string) (net.Listener, error) {
	var l net.Listener
	switch {
	case len(given) > 0:
		l = given[0]
	case address == "":
		return nil, nil
	default:
		var err error
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			return nil, fmt.Errorf("cannot listen: %w", err)
		}
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("cannot listen on %s: plain HTTP is served on loopback addresses only, with a proxy in front", a), l.Close())
	}
	return l, nil
}

func serve(ctx context.Context, o Options, services []service) error {
	failed := make(chan error, len(services))
	var servers []*http.Server
	var serves sync.WaitGroup
	for _, s := range services {
		server := &http.Server{
			Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
			MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		}
		servers = append(servers, server)
		serves.Go(func() { failed <- server.Serve(capped(s.listener, maxConnections, maxPerAddress)) })
		o.Logger.Info("serving", "what", s.name, "address", s.listener.Addr().String())
	}
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		o.Logger.Error("cannot notify systemd", "error", err)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("cannot serve: %w", err)
	}
	if _, e := systemd.SdNotify(false, systemd.SdNotifyStopping); e != nil {
		err = errors.Join(err, e)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(bounded) != nil {
			_ = s.Close() // whoever is still there had its time
		}
	}
	serves.Wait()
	return err
}
