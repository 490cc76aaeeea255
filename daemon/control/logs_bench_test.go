package control

import (
	"testing"

	"github.com/rtask/rtask/ctl/client"
	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// BenchmarkStreamLogs reads a log of random bytes over the socket, which has a newline in about each 256 bytes.
func BenchmarkStreamLogs(b *testing.B) {
	const size = 64 << 20
	f := newFixture(b, `task "a" {
		command = ["/bin/sh", "-c", "head -c 64M /dev/urandom"]
		log_max_bytes = "1G"
		timeout = "5min"
		user = "root"
	}`)
	b.SetBytes(size)
	operator := peers()[auth.Operator]
	j := must[rtaskv1.StartResponse](b)(f.as(operator).Start(b.Context(), &rtaskv1.StartRequest{Name: "a"})).Job
	must[rtaskv1.WaitResponse](b)(f.as(operator).Wait(b.Context(), &rtaskv1.WaitRequest{Job: j.Id}))
	for b.Loop() {
		s, err := f.as(operator).StreamLogs(b.Context(), &rtaskv1.StreamLogsRequest{Job: j.Id})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for m, err := range client.Messages(s) {
			if err != nil {
				b.Fatal(err)
			}
			n += len(m.Data)
		}
		if n != size {
			b.Fatal(n)
		}
	}
}
