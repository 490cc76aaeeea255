// Command rpc is a client of rtask's remote API that is made of others' parts only: grpc-go's connection and the messages that the
// server's reflection describes. It has no code of rtask's. Tests run it beside grpcurl.
//
//	rpc [FLAG...] METHOD [JSON]       calls a method of rtask.v1.JobService, prints each reply as JSON
//	rpc [FLAG...] health              asks for the health of the service
//	rpc [FLAG...] follow N JOB        follows the output of a job N times on one connection
//
// It ends with 0, or with 64 and the code of gRPC, as grpcurl does.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// options are what the flags say.
type options struct {
	host, cert, key, ca string
	timeout             time.Duration
	progress            bool
}

func main() {
	var o options
	flag.StringVar(&o.host, "host", "127.0.0.1:8843", "where the remote API is")
	flag.StringVar(&o.cert, "cert", "cert.pem", "the client's certificate")
	flag.StringVar(&o.key, "key", "key.pem", "its key")
	flag.StringVar(&o.ca, "ca", "ca.pem", "the authority of the server's certificate")
	flag.DurationVar(&o.timeout, "timeout", 0, "the deadline of a call; 0: none")
	flag.BoolVar(&o.progress, "progress", false, "print a line once all streams of follow have had data")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", status.Code(err), status.Convert(err).Message())
		for _, detail := range status.Convert(err).Proto().GetDetails() {
			fmt.Fprintln(os.Stderr, "detail", detail.GetTypeUrl())
		}
		os.Exit(64 + int(status.Code(err)))
	}
}

func run(ctx context.Context, o options, args []string) error {
	if len(args) == 0 {
		return status.Error(codes.InvalidArgument, "which method?")
	}
	conn, err := dial(o.host, o.cert, o.key, o.ca)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	defer conn.Close()
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	switch args[0] {
	case "follow":
		if len(args) != 3 {
			return status.Error(codes.InvalidArgument, "usage: rpc follow N JOB")
		}
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		return follow(ctx, conn, args[2], n, o.progress)
	case "health":
		reply, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		fmt.Println(reply.GetStatus())
		return nil
	default:
		message := "{}"
		if len(args) > 1 {
			message = args[1]
		}
		return call(ctx, conn, args[0], message, os.Stdout)
	}
}
