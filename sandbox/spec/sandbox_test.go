package spec_test

import (
	"slices"
	"testing"

	"github.com/rtask/rtask/sandbox/spec"
)

// TestSources: what a slot has mounted ends it when it is replaced.
func TestSources(t *testing.T) {
	for _, c := range []struct {
		s    spec.Sandbox
		dir  string
		want []string
	}{
		{spec.Sandbox{}, "/srv", nil},
		{spec.Sandbox{PrivateTmp: true}, "/tmp", nil},
		{spec.Sandbox{PrivateTmp: true}, "/tmp/a", []string{"/tmp/a"}},
		{spec.Sandbox{ProtectSystem: "strict"}, "/srv", []string{"/srv"}},
		{spec.Sandbox{ReadOnlyPaths: []string{"-/a"}}, "/a/b", []string{"/a", "/a/b"}},
		{spec.Sandbox{DynamicUser: true}, "/", []string{"/etc/passwd", "/etc/group"}},
		{
			spec.Sandbox{Binds: []spec.Bind{{Source: "/x", Destination: "/y"}}, LoadCredential: []spec.Credential{{Name: "k", Path: "/k"}}},
			"/", []string{"/x", "/k"},
		},
	} {
		if got := c.s.Sources(c.dir); !slices.Equal(got, c.want) {
			t.Errorf("%+v in %s: %q, want %q", c.s, c.dir, got, c.want)
		}
	}
}

// TestWithoutNamespaces: nothing is left that needs them.
func TestWithoutNamespaces(t *testing.T) {
	s := spec.Sandbox{
		NoNewPrivileges: true, PrivateTmp: true, PrivateDevices: true, PrivateNetwork: true, PrivateIPC: true, PrivatePIDs: true,
		PrivateUsers: true, ProtectSystem: "full", ProtectHome: "true", ProtectProc: "invisible", ProcSubset: "pid", ProtectHostname: true,
		ProtectKernelTunables: true, ProtectKernelModules: true, ProtectKernelLogs: true, ProtectControlGroups: true,
		ReadOnlyPaths: []string{"/a"}, ReadWritePaths: []string{"/a"}, InaccessiblePaths: []string{"/a"}, ExecPaths: []string{"/a"},
		NoExecPaths: []string{"/a"}, TemporaryFileSystem: []spec.TemporaryFileSystem{{Path: "/a"}},
		Binds: []spec.Bind{{Source: "/a"}, {Source: "/b", ReadOnly: true}}, LoadCredential: []spec.Credential{{Name: "a"}},
	}
	if n := len(s.NeedNamespaces()); n != 24 {
		t.Errorf("%d need namespaces: %q", n, s.NeedNamespaces())
	}
	if s = s.WithoutNamespaces(); s.Namespaces() || !s.NoNewPrivileges {
		t.Errorf("%+v", s)
	}
}

// TestForLentUser: what a lent number implies holds under every profile, as far as there are namespaces.
func TestForLentUser(t *testing.T) {
	s := spec.Sandbox{Profile: "off"}.ForLentUser("x", true)
	if !s.RestrictSUIDSGID || !s.PrivateTmp || !s.PrivateIPC || !s.DynamicUser || s.UserName != "x" || !s.Namespaces() {
		t.Errorf("%+v", s)
	}
	if s = (spec.Sandbox{}).ForLentUser("x", false); !s.RestrictSUIDSGID || s.Namespaces() {
		t.Errorf("without namespaces: %+v", s)
	}
}
