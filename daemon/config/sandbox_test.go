package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/spec"
)

// sandboxOf loads one task with body in its sandbox block, and defaults.
func sandboxOf(t *testing.T, defaults, body string) (spec.Sandbox, Diagnostics) {
	t.Helper()
	files := map[string]string{"tasks.d/a.hcl": "task \"a\" {\n  command = [\"true\"]\n  sandbox {\n" + body + "\n  }\n}\n"}
	if defaults != "" {
		files["rtask.hcl"] = "defaults {\n  sandbox {\n" + defaults + "\n  }\n}\n"
	}
	folder(t, files)
	cfg, diags := Load(here())
	if cfg == nil {
		return spec.Sandbox{}, diags
	}
	return cfg.Tasks["a"].Sandbox, diags
}

// TestSandboxSwitches: each switch changes what it names, over whatever profile.
func TestSandboxSwitches(t *testing.T) {
	mask, some := uint32(0o027), spec.Capability("CAP_KILL")|spec.Capability("CAP_CHOWN")
	for _, c := range []struct {
		body string
		want func(*spec.Sandbox)
	}{
		{`private_network = true`, func(s *spec.Sandbox) { s.PrivateNetwork = true }},
		{`private_pids = false`, func(s *spec.Sandbox) { s.PrivatePIDs = false }},
		{`protect_system = true`, func(s *spec.Sandbox) { s.ProtectSystem = "true" }},
		{`protect_system = "yes"`, func(s *spec.Sandbox) { s.ProtectSystem = "true" }},
		{`protect_system = false`, func(s *spec.Sandbox) { s.ProtectSystem = "" }},
		{`protect_home = "read-only"`, func(s *spec.Sandbox) { s.ProtectHome = "read-only" }},
		{`protect_proc = "ptraceable"`, func(s *spec.Sandbox) { s.ProtectProc = "ptraceable" }},
		{`proc_subset = "pid"`, func(s *spec.Sandbox) { s.ProcSubset = "pid" }},
		{`read_only_paths = ["/srv/", "-/a b//c"]`, func(s *spec.Sandbox) { s.ReadOnlyPaths = []string{"/srv", "-/a b/c"} }},
		{`exec_paths = "/usr"`, func(s *spec.Sandbox) { s.ExecPaths = []string{"/usr"} }},
		{`temporary_file_system = ["/a", "/b:ro,size=1M"]`, func(s *spec.Sandbox) {
			s.TemporaryFileSystem = []spec.TemporaryFileSystem{{Path: "/a"}, {Path: "/b", ReadOnly: true, Options: "size=1M"}}
		}},
		{"bind_paths = [\"/a\", \"-/b:/c:norbind\"]\nbind_read_only_paths = [\"/d:/e\"]", func(s *spec.Sandbox) {
			s.Binds = []spec.Bind{
				{Source: "/a", Destination: "/a"}, {Source: "/b", Destination: "/c", Optional: true, Single: true},
				{Source: "/d", Destination: "/e", ReadOnly: true},
			}
		}},
		{`load_credential = ["a:/etc/a", "b"]`, func(s *spec.Sandbox) {
			s.LoadCredential = []spec.Credential{{Name: "a", Path: "/etc/a"}, {Name: "b", Path: "/etc/credstore/b"}}
		}},
		{`capability_bounding_set = ["CAP_KILL cap_chown CAP_MKNOD", "~CAP_MKNOD"]`, func(s *spec.Sandbox) { s.CapabilityBoundingSet = &some }},
		{`capability_bounding_set = []`, func(s *spec.Sandbox) { s.CapabilityBoundingSet = new(uint64) }},
		{`ambient_capabilities = ["CAP_KILL"]`, func(s *spec.Sandbox) { s.AmbientCapabilities = spec.Capability("CAP_KILL") }},
		{`system_call_filter = ["@system-service", "~@privileged"]`, func(s *spec.Sandbox) { s.SystemCallFilter = []string{"@system-service", "~@privileged"} }},
		{`system_call_filter = []`, func(s *spec.Sandbox) { s.SystemCallFilter = nil }},
		{`system_call_error_number = "ENOSYS"`, func(s *spec.Sandbox) { s.SystemCallErrorNumber = "ENOSYS" }},
		{`restrict_namespaces = false`, func(s *spec.Sandbox) { s.RestrictNamespaces = nil }},
		{`restrict_namespaces = ["user mnt"]`, func(s *spec.Sandbox) { s.RestrictNamespaces = []string{"user mnt"} }},
		{`restrict_address_families = ["AF_UNIX"]`, func(s *spec.Sandbox) { s.RestrictAddressFamilies = []string{"AF_UNIX"} }},
		{`umask = "0027"`, func(s *spec.Sandbox) { s.UMask = &mask }},
	} {
		for _, name := range []string{ProfileOff, ProfileDefault, ProfileStrict} {
			// The profile may stand behind: it is the basis all the same.
			got, diags := sandboxOf(t, "", c.body+"\nprofile = \""+name+"\"")
			if len(diags) != 0 {
				t.Fatalf("%s: %v", c.body, diags)
			}
			want := profile(name)
			c.want(&want)
			if len(got.Named) == 0 || !strings.Contains(c.body, got.Named[0]) {
				t.Errorf("%s: named are %q", c.body, got.Named)
			}
			got.Named = nil
			empty := func(s *spec.Sandbox) {
				for _, list := range []*[]string{&s.SystemCallFilter, &s.RestrictNamespaces} {
					if len(*list) == 0 {
						*list = nil
					}
				}
			}
			empty(&got)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s over %s:\n got %+v\nwant %+v", c.body, name, got, want)
			}
		}
	}
}

// TestProfiles: the values of the profiles in the table of switches are good, and nothing of off does anything.
func TestProfiles(t *testing.T) {
	for _, name := range []string{ProfileOff, ProfileDefault, ProfileStrict} {
		if err := seccomp.Check(profile(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := spec.Sandbox{Profile: ProfileOff}
	for _, one := range sandboxSwitches() {
		if one.fallback != "" && one.name != "profile" {
			set(one.attribute, one.fallback, &s)
		}
	}
	if want := profile(ProfileOff); !reflect.DeepEqual(s, want) {
		t.Errorf("the fallbacks make %+v, want %+v", s, want)
	}
}

// TestSandboxDefaults: a task adds to what defaults say, and a profile of its own begins anew.
func TestSandboxDefaults(t *testing.T) {
	const defaults = "profile = \"strict\"\nprivate_network = false"
	got, _ := sandboxOf(t, defaults, `private_tmp = false`)
	if got.Profile != ProfileStrict || got.PrivateNetwork || got.PrivateTmp || !slices.Equal(got.Named, []string{"private_network", "private_tmp"}) {
		t.Errorf("%+v", got)
	}
	if got, _ = sandboxOf(t, defaults, `profile = "default"`); !reflect.DeepEqual(got, profile(ProfileDefault)) {
		t.Errorf("%+v", got)
	}
}

// TestSandboxErrors: what is wrong is said, with what would be right.
func TestSandboxErrors(t *testing.T) {
	for _, c := range []struct{ body, want, detail string }{
		{`profile = "strikt"`, `profile must be off or default or strict, not "strikt"`, `Write for example: profile = "strict"`},
		{`protect_system = "most"`, `protect_system must be false or true or full or strict, not "most"`, ""},
		{`protect_proc = true`, `protect_proc must be default or noaccess or invisible or ptraceable, not true or false`, ""},
		{`private_network = "yes"`, `private_network must be true or false, not a string`, ""},
		{`private_netwrk = true`, `unknown name "private_netwrk" in sandbox { … }`, `Did you mean "private_network"?`},
		{`read_only_paths = ["srv"]`, `read_only_paths: "srv" is not absolute`, `It must begin with a slash: "/srv/data"`},
		{`inaccessible_paths = ["/a/../b"]`, `inaccessible_paths: "/a/../b" has ".." in it`, `Write it without: "/b"`},
		{`bind_paths = ["/a:/"]`, `bind_paths: nothing can be bound over /`, ""},
		{`bind_paths = ["/a:/b:x"]`, `bind_paths: unknown option "x"`, `There are rbind, the default, and norbind.`},
		{`temporary_file_system = ["/a:exec"]`, `temporary_file_system: unknown option "exec"`, ""},
		{`load_credential = ["a/b:/c"]`, `load_credential: "a/b" cannot be the name of a credential`, ""},
		{`capability_bounding_set = ["CAP_NET_ADMN"]`, `capability_bounding_set: there is no capability "CAP_NET_ADMN"`, `Did you mean "CAP_NET_ADMIN"?`},
		{`system_call_filter = ["@sistem-service"]`, `system_call_filter: `, ""},
		{`system_call_filter = ["nocall"]`, `system_call_filter: `, ""},
		{`restrict_address_families = ["AF_NONE"]`, `restrict_address_families: `, ""},
		{`restrict_namespaces = ["usr"]`, `restrict_namespaces: `, ""},
		{`system_call_architectures = ["pdp11"]`, `system_call_architectures: `, ""},
		{`umask = "0999"`, `umask must be an octal number up to 0777, not "0999"`, ""},
	} {
		_, diags := sandboxOf(t, "", c.body)
		if len(diags) != 1 || !strings.HasPrefix(diags[0].Summary, c.want) || !strings.Contains(diags[0].Detail, c.detail) || diags[0].Line != 4 {
			t.Errorf("%s: %v", c.body, diags)
		}
	}
}

// TestSandboxProperties: a command takes the same, in systemd's words too.
func TestSandboxProperties(t *testing.T) {
	p := Properties{Sandbox: CommandSandbox()}
	err := p.Parse([]Property{{"PrivateTmp", "yes"}, {"profile", "strict"}, {"ReadOnlyPaths", "/a /b"}, {"read_only_paths", "/c"}, {"private_network", "0"}})
	want := profile(ProfileStrict)
	want.ReadOnlyPaths, want.PrivateNetwork, want.Named = []string{"/a", "/b", "/c"}, false, []string{"private_network", "private_tmp", "read_only_paths"}
	if err != nil || !reflect.DeepEqual(p.Sandbox, want) {
		t.Errorf("%v\n%+v\n%+v", err, p.Sandbox, want)
	}
	p = Properties{Sandbox: CommandSandbox()}
	if err := p.Parse([]Property{{"profile", "off"}}); err != nil || !p.Sandbox.NoNewPrivileges {
		t.Errorf("%v, %+v", err, p.Sandbox)
	}
	if err := p.Parse([]Property{{"PrivateTmp", "maybe"}}); err == nil || err.Error() != `private_tmp must be true or false, not "maybe". Write for example: private_tmp=true` {
		t.Error(err)
	}
}
