package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

const (
	// streams is how many followers share a connection: the engine lets a user have 32 connections, with 64 calls on each.
	streams = 50
	// followerMemory is what the engine may need for a follower, in bytes: the stacks of its goroutines, and the piece that
	// is on its way, which is 64 KiB and exists as read, as encoded and as framed. It is far below what the tests let each
	// read, so that an engine which keeps output for its followers is found out.
	followerMemory = 320 << 10
)

// followers N PID JOB FILE follows a job N times over, makes FILE when all of them follow, and checks that each gets what the
// job says it wrote: its last line on standard error is the SHA-256 of its standard output. Meanwhile the engine, which is
// the process PID, may not need more memory than N followers account for.
func followers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: followers N PID JOB FILE")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	pid, job, file := args[1], args[2], ts.MkAbs(args[3])
	socket := ts.Getenv("RTASK_SOCKET")
	if socket == "" {
		socket = "/run/rtask/rtask.sock"
	}
	before := memory(ts, pid, "VmRSS")
	ts.Check(os.WriteFile("/proc/"+pid+"/clear_refs", []byte("5"), 0)) // VmHWM begins anew, proc_pid_clear_refs(5)

	var following, all sync.WaitGroup
	failed := make(chan error, n)
	var engine rtaskv1connect.JobServiceClient
	for i := range n {
		if i%streams == 0 {
			var p http.Protocols
			p.SetUnencryptedHTTP2(true)
			t := &http.Transport{Protocols: &p, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}}
			defer t.CloseIdleConnections()
			engine = rtaskv1connect.NewJobServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: t}, "http://rtask")))
		}
		following.Add(1)
		all.Go(func() { failed <- followOne(engine, job, following.Done) })
	}
	following.Wait()
	ts.Check(os.WriteFile(file, nil, 0o644))
	all.Wait()
	for range n {
		ts.Check(<-failed)
	}
	peak := memory(ts, pid, "VmHWM")
	ts.Logf("%d followers; the engine had %d KiB before them and %d KiB at most", n, before>>10, peak>>10)
	if peak-before > n*followerMemory {
		ts.Fatalf("the engine needed %d bytes for each follower", (peak-before)/n)
	}
}

// followOne follows a job to its end. It calls ready when it follows.
func followOne(engine rtaskv1connect.JobServiceClient, job string, ready func()) error {
	s, err := engine.StreamLogs(context.Background(), &rtaskv1.StreamLogsRequest{Job: job, Follow: true})
	ready()
	if err != nil {
		return err
	}
	defer s.Close()
	hash := sha256.New()
	var stderr strings.Builder
	for m, err := range client.Messages(s) {
		switch {
		case err != nil:
			return err
		case m.Stream == rtaskv1.Stream_STREAM_STDERR:
			stderr.Write(m.Data)
		default:
			hash.Write(m.Data)
		}
	}
	if got := fmt.Sprintf("%x  -\n", hash.Sum(nil)); got != stderr.String() {
		return fmt.Errorf("a follower got something else: %s, the job wrote %s", got, stderr.String())
	}
	return nil
}

// memory is a line of /proc/PID/status, in bytes.
func memory(ts *testscript.TestScript, pid, name string) int {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	ts.Check(err)
	m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(b)
	if m == nil {
		ts.Fatalf("no %s of process %s", name, pid)
	}
	kib, err := strconv.Atoi(string(m[1]))
	ts.Check(err)
	return kib << 10
}
