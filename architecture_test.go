package rtask_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rtask/rtask/"

// rule is what a package may import of the project, and what it must never reach, also through others.
type rule struct {
	// may lists packages of the project that it imports, relative to the module.
	may []string
	// never lists packages that must not be among its dependencies, with the reason.
	never map[string]string
}

// rules has every package of the project, as the table in docs/architecture.md. A package that is not here fails the test.
func rules() map[string]rule {
	const (
		noNetwork   = "the engine's core must not be able to open a network connection by way of a library"
		noProcesses = "processes are started in one place only: package sandbox"
		decides     = "the gateway decides nothing and holds nothing"
		small       = "the shim is started for each slot, so it must be small, and it speaks to its engine alone"
	)
	return map[string]rule{
		"cmd/rtaskd":        {may: []string{"daemon", "daemon/logging"}},
		"cmd/rtask-gateway": {may: []string{"daemon/gateway", "daemon/logging"}},
		"cmd/rtask-shim":    {may: []string{"sandbox/shim"}},
		"cmd/rtaskctl":      {may: []string{"ctl"}},

		"daemon": {
			may: []string{
				"daemon/api/rtask/v1", "daemon/auth", "daemon/auth/authority", "daemon/auth/provider", "daemon/auth/provider/handover", "daemon/auth/token", "daemon/companion", "daemon/config", "daemon/config/calendar", "daemon/config/machine", "daemon/control", "daemon/deliveries", "daemon/issuer", "daemon/job", "daemon/logging", "daemon/schedule", "sandbox", "sandbox/durable",
				"sandbox/privilege", "sandbox/spec",
			},
		},
		"daemon/api/rtask/v1":                       {},
		"daemon/api/view":                           {may: []string{"daemon/api/rtask/v1"}},
		"daemon/api/codec":                          {may: []string{"daemon/api/rtask/v1"}},
		"daemon/api/rtask/v1/rtaskv1connect":        {may: []string{"daemon/api/rtask/v1"}},
		"daemon/api/grpc/health/v1":                 {},
		"daemon/api/grpc/health/v1/healthv1connect": {may: []string{"daemon/api/grpc/health/v1"}},
		"daemon/jobid":                              {never: map[string]string{"net": "it only makes names", "os/exec": noProcesses}},
		"daemon/origin":                             {never: map[string]string{"net": "numbers in, numbers out", "os/exec": noProcesses}},
		"daemon/logging":                            {never: map[string]string{"net/http": "it only writes lines"}},
		"daemon/companion":                          {never: map[string]string{"net/http": "it only starts the gateway"}},
		"daemon/config/oldtoml":                     {may: []string{"sandbox/wording"}, never: map[string]string{"os/exec": noProcesses, "net/http": noNetwork}},
		"daemon/config/foreign":                     {may: []string{"sandbox/wording"}, never: map[string]string{"os/exec": noProcesses}},
		"daemon/config/calendar":                    {may: []string{"daemon/config"}, never: map[string]string{"net/http": noNetwork}},
		"daemon/schedule":                           {may: []string{"daemon/config"}, never: map[string]string{"net/http": noNetwork, "os/exec": noProcesses}},
		"daemon/config/machine":                     {may: []string{"daemon/config", "sandbox/spec"}, never: map[string]string{"os/exec": noProcesses, "net/http": noNetwork}},
		"daemon/config": {
			may:   []string{"daemon/auth/cost", "daemon/auth/webhook", "daemon/config/oldtoml", "daemon/expression", "sandbox/jail/seccomp", "sandbox/safepath", "sandbox/spec", "sandbox/wording"},
			never: map[string]string{"net/http": noNetwork, "os/exec": noProcesses, module + "sandbox": "files in, values out"},
		},
		"daemon/job": {
			may:   []string{"daemon/job/admission", "daemon/jobid", "daemon/store", "sandbox", "sandbox/durable", "sandbox/log", "sandbox/scope", "sandbox/spec", "sandbox/wire"},
			never: map[string]string{"net/http": noNetwork, module + "daemon/config": "the library knows no configuration files"},
		},
		"daemon/job/admission": {
			may:   []string{"sandbox/spec"},
			never: map[string]string{"os/exec": "it decides, in memory", "net": "it decides, in memory", module + "daemon/store": "it decides, in memory"},
		},
		"daemon/store": {may: []string{"sandbox/durable"}, never: map[string]string{"net/http": noNetwork, "os/exec": noProcesses}},
		"daemon/deliveries": {
			may:   []string{"daemon/auth/webhook", "daemon/jobid", "sandbox/durable"},
			never: map[string]string{"net/http": noNetwork, "os/exec": noProcesses, module + "daemon/config": "it knows no configuration files"},
		},
		"daemon/auth/cost": {never: map[string]string{"net": "numbers and their bounds", "os/exec": noProcesses}},
		"daemon/auth":      {may: []string{"daemon/auth/cost", "daemon/origin", "sandbox/durable"}, never: map[string]string{"net/http": noNetwork, "os/exec": "who calls must not be able to start anything"}},
		"daemon/auth/provider": {
			may:   []string{"daemon/auth/provider/handover", "daemon/auth/token", "sandbox/durable"},
			never: map[string]string{"net/http": noNetwork, "os/exec": "who calls must not be able to start anything"},
		},
		"daemon/auth/provider/handover": {never: map[string]string{"net": "the content of two files", "os/exec": noProcesses}},
		"daemon/auth/token": {
			may:   []string{"sandbox/durable"},
			never: map[string]string{"net/http": noNetwork, "os/exec": "who calls must not be able to start anything"},
		},
		"daemon/auth/webhook": {
			never: map[string]string{"net": "bytes in, yes or no out", "os/exec": "who calls must not be able to start anything"},
		},
		"daemon/expression": {
			may:   []string{"daemon/auth/webhook", "sandbox/wording"},
			never: map[string]string{"net/http": "requests in, values out", "os/exec": noProcesses, module + "daemon/config": "it knows no configuration files"},
		},
		"daemon/auth/join": {
			never: map[string]string{"net/http": "text in, values out", "os/exec": "who calls must not be able to start anything"},
		},
		"daemon/auth/authority": {
			may:   []string{"daemon/auth/join", "daemon/origin", "sandbox/durable"},
			never: map[string]string{"net/http": noNetwork, "os/exec": "who calls must not be able to start anything"},
		},
		"daemon/control": {
			may: []string{
				"daemon/api/codec", "daemon/api/grpc/health/v1", "daemon/api/grpc/health/v1/healthv1connect", "daemon/api/rtask/v1",
				"daemon/api/rtask/v1/rtaskv1connect", "daemon/auth", "daemon/auth/authority", "daemon/auth/join", "daemon/auth/provider", "daemon/auth/token", "daemon/auth/webhook", "daemon/config", "daemon/deliveries", "daemon/expression", "daemon/issuer",
				"daemon/job", "daemon/jobid", "sandbox/log", "sandbox/spec",
			},
		},
		"daemon/issuer": {
			may:   []string{"daemon/auth/authority", "daemon/auth/provider", "daemon/auth/token"},
			never: map[string]string{"os/exec": "who calls must not be able to start anything", module + "daemon/config": "it turns requests into values"},
		},
		"daemon/gateway": {
			may: []string{"ctl/client", "daemon/api/codec", "daemon/api/rtask/v1", "daemon/api/rtask/v1/rtaskv1connect", "daemon/api/view", "daemon/jobid", "daemon/logging", "daemon/origin"},
			never: map[string]string{
				"os/exec": decides, module + "daemon/auth": decides, module + "daemon/config": decides,
				module + "daemon/job": decides, module + "daemon/store": decides, module + "sandbox": decides,
			},
		},

		"sandbox": {
			may:   []string{"sandbox/cgroup", "sandbox/jail/landlock", "sandbox/privilege", "sandbox/scope", "sandbox/spec", "sandbox/wire"},
			never: map[string]string{"net/http": noNetwork, module + "sandbox/shim": "the two halves meet on the wire only"},
		},
		"sandbox/spec":      {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/wire":      {may: []string{"sandbox/spec"}, never: map[string]string{"net/http": small, "os/exec": noProcesses}},
		"sandbox/log":       {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/durable":   {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/wording":   {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/scope":     {may: []string{"sandbox/cgroup", "sandbox/wording"}, never: map[string]string{"net/http": noNetwork}},
		"sandbox/cgroup":    {may: []string{"sandbox/spec"}, never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/jail":      {may: []string{"sandbox/jail/fork", "sandbox/jail/landlock", "sandbox/jail/seccomp", "sandbox/privilege", "sandbox/safepath", "sandbox/spec"}, never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/safepath":  {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/privilege": {never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/jail/fork": {may: []string{"sandbox/spec"}, never: map[string]string{"net": small, "os/exec": noProcesses}},
		"sandbox/jail/landlock": {
			never: map[string]string{"net": small, "os/exec": noProcesses},
		},
		"sandbox/jail/seccomp": {
			may:   []string{"sandbox/spec", "sandbox/wording"},
			never: map[string]string{"net": small, "os/exec": noProcesses},
		},
		"sandbox/shim": {
			may: []string{"sandbox/cgroup", "sandbox/durable", "sandbox/jail", "sandbox/log", "sandbox/privilege", "sandbox/spec", "sandbox/wire"},
			never: map[string]string{
				"net/http": small, "os/exec": noProcesses, "github.com/godbus/dbus/v5": small,
				"google.golang.org/protobuf/proto": small,
			},
		},

		"ctl": {
			may:   []string{"ctl/client", "ctl/contexts", "ctl/credentials", "ctl/fetch", "ctl/journal", "ctl/keystore", "ctl/login", "daemon/api/rtask/v1", "daemon/api/rtask/v1/rtaskv1connect", "daemon/api/view", "daemon/auth/join", "daemon/auth/webhook", "daemon/config", "daemon/config/calendar", "daemon/config/foreign", "daemon/config/machine", "daemon/config/oldtoml", "sandbox/durable", "sandbox/wording"},
			never: map[string]string{module + "sandbox": "rtaskctl asks the engine", module + "daemon/job": "rtaskctl asks the engine"},
		},
		"ctl/credentials": {
			may:   []string{"sandbox/durable"},
			never: map[string]string{"net": "it only starts systemd-creds"},
		},
		"ctl/contexts": {
			may:   []string{"ctl/client", "ctl/keystore", "sandbox/durable", "sandbox/wording"},
			never: map[string]string{"os/exec": "files of contexts start nothing"},
		},
		"ctl/login":    {may: []string{"ctl/client"}, never: map[string]string{"os/exec": "a person opens the browser"}},
		"ctl/keystore": {may: []string{"sandbox/durable"}, never: map[string]string{"os/exec": "keys start nothing", "net/http": "keys know no servers"}},
		"ctl/fetch":    {may: []string{"daemon/auth/provider/handover", "sandbox/durable"}, never: map[string]string{"os/exec": "it only fetches files"}},
		"ctl/journal":  {never: map[string]string{"net": "it only starts journalctl"}},
		"ctl/client": {
			may:   []string{"daemon/api/codec", "daemon/api/rtask/v1", "daemon/api/rtask/v1/rtaskv1connect", "sandbox/wording"},
			never: map[string]string{"os/exec": "the gateway uses it"},
		},
	}
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// TestImports holds the direction of imports: it is the architecture, as far as a compiler can see it.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./cmd/...", "./daemon/...", "./sandbox/...", "./ctl/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := rules()
	seen := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		r, ok := all[name]
		if !ok {
			t.Errorf("%s has no rule: add it here and to the table in docs/architecture.md", name)
			continue
		}
		for _, i := range p.Imports {
			local, ok := strings.CutPrefix(i, module)
			if ok && !slices.Contains(r.may, local) {
				t.Errorf("%s imports %s, and may import only %v", name, local, r.may)
			}
			if i == "os/exec" && name != "sandbox" && name != "daemon/companion" && name != "ctl/journal" && name != "ctl/credentials" && name != "daemon/config/calendar" {
				t.Errorf("%s imports os/exec: jobs are started in package sandbox only, beside them the gateway, journalctl, systemd-analyze and systemd-creds, which alone knows the key of a machine", name)
			}
			if i == "os/signal" && !strings.HasPrefix(name, "cmd/") && name != "sandbox/shim" {
				t.Errorf("%s imports os/signal: signals are turned into contexts in cmd", name)
			}
		}
		for _, d := range p.Deps {
			if why, banned := r.never[d]; banned {
				t.Errorf("%s reaches %s: %s", name, d, why)
			}
		}
	}
	for name := range all {
		if !seen[name] {
			t.Errorf("there is no package %s any more: remove its rule", name)
		}
	}
}
