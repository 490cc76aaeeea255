package jail

import (
	"testing"

	"github.com/rtask/rtask/sandbox/spec"
)

// BenchmarkRoom is what a slot takes once, and again after a job that left something.
func BenchmarkRoom(b *testing.B) {
	s := spec.Sandbox{
		PrivateTmp: true, PrivateIPC: true, PrivatePIDs: true, ProtectHostname: true, ProtectKernelTunables: true, ProtectKernelLogs: true,
		ProtectControlGroups: true, DynamicUser: true, UserName: "rtask-job",
	}
	for b.Loop() {
		r, err := NewRoom(s, "/", &spec.Credentials{UID: 70000, GID: 70000})
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
