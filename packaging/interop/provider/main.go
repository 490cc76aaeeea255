// Command provider is an OpenID provider over TLS for tests, made of zitadel/oidc's example server: discovery, keys, authorization code
// with PKCE, device flow and token exchange. With it come a person, who logs in as a browser would, and the endpoint that gives jobs of
// GitHub Actions their OpenID tokens.
//
//	provider [-listen ADDRESS] [-issuer URL] [-user NAME[=GROUP,…]]… [-client NAME[=LIFE]]… DIR
//	                                                           serves; writes ca.pem into DIR and prints its issuer
//	provider -person NAME [-deny] -ca FILE URL                 opens an authorization URL, or one of a device, and logs in
//
// A user's password is the name behind "password of ". The client is rtaskctl, which is public, as are those of -client, whose ID tokens
// are good for LIFE. The token endpoint for CI is ISSUER/actions/token, and its bearer token is "runner". Its issuer is ISSUER/actions.
// On SIGHUP it signs with another key; the one before stays published until the next time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	var users userFlag
	clients := clientFlag{"rtaskctl": time.Hour}
	listen := flag.String("listen", "127.0.0.1:0", "the address to listen at")
	issuer := flag.String("issuer", "", "who it says it is (default: https:// and its address)")
	person := flag.String("person", "", "log in as this user")
	deny := flag.Bool("deny", false, "deny what a device asks for")
	ca := flag.String("ca", "", "the provider's authority")
	claims := flag.String("claims", "{}", "claims of CI's tokens, as JSON")
	flag.Var(&users, "user", "a user and the groups he is in")
	flag.Var(clients, "client", "a client and how long its ID tokens are good")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := errors.New("usage: provider [FLAG...] DIR, or: provider -person NAME -ca FILE URL")
	switch {
	case flag.NArg() == 1 && *person != "":
		err = logIn(ctx, flag.Arg(0), *ca, *person, *deny, os.Stdout)
	case flag.NArg() == 1:
		err = serve(ctx, *listen, *issuer, flag.Arg(0), users, clients, *claims)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

// userFlag collects NAME=GROUP,….
type userFlag []user

func (u *userFlag) String() string { return "" }

func (u *userFlag) Set(text string) error {
	name, groups, _ := strings.Cut(text, "=")
	if name == "" {
		return errors.New("a user has a name")
	}
	one := user{name: name}
	if groups != "" {
		one.groups = strings.Split(groups, ",")
	}
	*u = append(*u, one)
	return nil
}

// clientFlag collects NAME=LIFE.
type clientFlag map[string]time.Duration

func (c clientFlag) String() string { return "" }

func (c clientFlag) Set(text string) error {
	name, life, ok := strings.Cut(text, "=")
	if !ok {
		life = "1h"
	}
	d, err := time.ParseDuration(life)
	c[name] = d
	return err
}

// serve is the provider, until ctx ends.
func serve(ctx context.Context, listen, issuer, dir string, users []user, clients clientFlag, claims string) error {
	config, err := makeTLS(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if issuer == "" {
		issuer = "https://" + l.Addr().String()
	}
	for name := range clients {
		storage.RegisterClients(storage.NativeClient(name, "http://127.0.0.1/callback", "http://127.0.0.1/"))
	}
	store := newStore(users, clients)
	if err := store.keys.rotate(); err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() { // ends with the program
		for range hangup {
			if err := store.keys.rotate(); err != nil {
				fmt.Fprintln(os.Stderr, "provider:", err)
			}
		}
	}()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	mux := http.NewServeMux()
	mux.Handle("/", exampleop.SetupServer(issuer, store, quiet, false))
	if err := addActions(mux, issuer, store, claims); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Println(issuer)
	if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
