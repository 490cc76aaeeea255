// Package gateway is the network side of rtask, a process of its own without privileges: it does HTTP and nothing else.
// It opens no file but its credentials (certificates and keys of its ports, a token for the metrics), holds no other secret and decides
// nothing else but whose certificates let them on to the port for remote clients: what a stranger presents goes to the engine as it is,
// and the engine's answer goes back.
//
// Only cmd/rtask-gateway imports it.
package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/daemon/logging"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	// maxStreams is how many requests a connection of HTTP/2 has at a time, maxFrameBytes the longest frame that is read, the
	// least that the protocol allows (RFC 9113, section 4.2), and maxUnread how many bytes of bodies may come before they are
	// asked for.
	maxStreams    = 64
	maxFrameBytes = 16 << 10
	maxUnread     = 128 << 10
	// stopTimeout is how long requests that are under way may take when the gateway stops; the unit's TimeoutStopSec= is
	// longer.
	stopTimeout = 30 * time.Second
)

// Options are a gateway's.
type Options struct {
	// Engine is the path of the engine's socket for gateways. Beside it is remote.sock, for what remote clients ask.
	Engine string
	// APIAddress, HTTPSAddress, RemoteAddress and MetricsAddress are host:port to listen on where systemd gives no sockets named "api",
	// "https", "remote" and "metrics"; empty: not served.
	APIAddress, HTTPSAddress, RemoteAddress, MetricsAddress string
	// CredentialsDir is the folder of the gateway's credentials, CREDENTIALS_DIRECTORY of systemd.exec(5); "": there are none.
	// Certificate, if set, is where the certificate and the key of HTTPS are read instead, one behind the other.
	CredentialsDir string
	Certificate    io.Reader
	// RemoteKey, if set, is where the key of the port for remote clients is read instead, with or without its certificate.
	RemoteKey io.Reader
	Version   string
	Logger    *slog.Logger

	most int // connections of a socket; 0: maxConnections
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
	defer api.watch.close()
	r := newRemote(engine.Gateway, api, o)
	defer r.close()
	services, err := o.open(ctx, api, r, newMetrics(engine.Gateway, o), given)
	if err != nil {
		return err
	}
	return serve(ctx, o, services)
}

// service is a handler behind a listener.
type service struct {
	name     string
	handler  http.Handler
	listener net.Listener
	tls      *tls.Config // nil: without
	remote   *remote     // nil: the service is another one
}

// open takes over what systemd gave, and listens where it gave nothing.
func (o Options) open(ctx context.Context, api *api, r *remote, metrics http.Handler, given map[string][]net.Listener) ([]service, error) {
	var services []service
	for _, s := range []struct {
		name, address string
		handler       http.Handler
	}{{"api", o.APIAddress, api}, {"https", o.HTTPSAddress, api}, {"remote", o.RemoteAddress, r.proxy}, {"metrics", o.MetricsAddress, metrics}} {
		listeners := given[s.name]
		if len(listeners) == 0 && s.address != "" {
			l, err := listen(ctx, s.address, s.name == "https" || s.name == "remote", api.plaintext)
			if err != nil && s.name == "api" {
				return nil, errors.Join(err, closeAll(services))
			}
			if err != nil { // a port that is taken must not hold back the API
				o.Logger.Error("not served", "what", s.name, "error", err)
				continue
			}
			listeners = []net.Listener{l}
		}
		var config *tls.Config
		if s.name == "https" && len(listeners) > 0 {
			config = o.tlsConfig()
		}
		for _, l := range listeners {
			if s.name == "remote" {
				services = append(services, service{name: s.name, handler: s.handler, listener: unproven{l}, tls: r.open(), remote: r})
				continue
			}
			handler := s.handler
			if config == nil && !loopback(l.Addr()) {
				x := &exposed{Listener: l, what: s.name, allowed: func() error { return api.plaintext(ctx) }, logger: o.Logger}
				l, handler = x, x.guard(handler)
			}
			services = append(services, service{name: s.name, handler: handler, listener: l, tls: config})
		}
	}
	if len(services) == 0 {
		return nil, errors.New("cannot serve: no socket came from systemd, and no --api-address is given")
	}
	return services, nil
}

func closeAll(services []service) error {
	var err error
	for _, s := range services {
		err = errors.Join(err, s.listener.Close())
	}
	return err
}

// listen opens a socket. One that must not be served is an error.
func listen(ctx context.Context, address string, encrypted bool, plaintext func(context.Context) error) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	if !encrypted && !loopback(l.Addr()) {
		if err := plaintext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot listen on %s: %w", l.Addr(), err), l.Close())
		}
	}
	return l, nil
}

// serve serves one socket until its server is shut down.
func (s service) serve(server *http.Server, listener net.Listener, l *slog.Logger) error {
	x, without := s.listener.(*exposed)
	if refuses := without && !x.open() || s.tls != nil && len(s.tls.Certificates) == 0 && s.tls.GetConfigForClient == nil; !refuses { // else that is logged
		l.Info("serving", "what", s.name, "address", s.listener.Addr().String())
	}
	if s.tls == nil {
		return server.Serve(listener)
	}
	server.TLSConfig = s.tls
	return server.ServeTLS(listener, "", "")
}

// server returns one for a socket.
func (s service) server(l *slog.Logger) *http.Server {
	server := &http.Server{
		Handler: counted(s.handler, func(w http.ResponseWriter, _ *http.Request, p problem) { writeProblem(w, p) }), ConnContext: connContext, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: logging.ForServer(l),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrameBytes, MaxReceiveBufferPerConnection: maxUnread,
			MaxReceiveBufferPerStream: maxUnread, WriteByteTimeout: writeTimeout,
		},
	}
	if s.remote != nil {
		s.remote.configure(server)
	}
	return server
}

func serve(ctx context.Context, o Options, services []service) error {
	failed := make(chan error, len(services))
	var servers []*http.Server
	var listeners []*connections
	var serves sync.WaitGroup
	for _, s := range services {
		defer o.watch(s)()
		server := s.server(o.Logger)
		listener := capped(s.listener, cmp.Or(o.most, maxConnections), maxPerAddress)
		servers, listeners = append(servers, server), append(listeners, listener)
		serves.Go(func() { failed <- s.serve(server, listener, o.Logger) })
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
	var first time.Duration
	for _, l := range listeners {
		first = max(first, l.stop())
	}
	time.Sleep(first)
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
