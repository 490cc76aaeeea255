// Package packaging holds what is around the programs: units, manuals, packages. It has no code but this test, which holds
// them to what the programs say. What the units do under systemd is tested in packaging/e2e.
package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/auth/provider/handover"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/packaging/testkit"
)

// tool returns the path of a program that is not part of Go, or skips the test. Where CI is set, what packaging/test
// installs must be there.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" && slices.Contains([]string{"groff", "prometheus", "promtool"}, name) {
		t.Fatalf("there is no %s, which packaging/test installs", name)
	}
	if err != nil {
		t.Skipf("skipped: there is no %s on this machine", name)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return files
}

// section is the NAME=VALUE lines of one section of a unit, in their order.
func section(unit, name string) [][2]string {
	var found [][2]string
	in := ""
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			in = strings.Trim(line, "[]")
		case ok && in == name:
			found = append(found, [2]string{key, value})
		}
	}
	return found
}

// standInUnits is a folder with the units, for systemd-analyze on a machine where the programs are not installed.
func standInUnits(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := regexp.MustCompile(`(?m)^(Exec\w+)=/usr/bin/.*$`)
	for _, kind := range []string{"service", "socket", "slice", "timer", "path"} {
		for _, file := range glob(t, "systemd/*."+kind) {
			text := program.ReplaceAllString(read(t, file), "$1=/bin/true")
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// analyze runs systemd-analyze on the units in dir and on systemd's own.
func analyze(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(tool(t, "systemd-analyze"), args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestUnitsVerify(t *testing.T) {
	dir := standInUnits(t)
	// It says what it ignores, and succeeds all the same.
	out, err := analyze(t, dir, append([]string{"verify", "--man=no"}, glob(t, dir+"/*")...)...)
	if err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestGatewayIsConfined holds the gateway's unit to the exposure that is aimed at: 1.2 of 10.
func TestGatewayIsConfined(t *testing.T) {
	out, err := analyze(t, standInUnits(t), "security", "--no-pager", "--offline=true", "--threshold=12", "rtask-gateway.service")
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	// Of two directives for "/", systemd takes the read-only one, and the whole file system would be there to read.
	keys := map[string]string{}
	for _, kv := range section(read(t, "systemd/rtask-gateway.service"), "Service") {
		keys[kv[0]] = kv[1]
	}
	if keys["TemporaryFileSystem"] != "/:ro" || keys["ProtectSystem"] != "" {
		t.Errorf("the gateway has TemporaryFileSystem=%s and ProtectSystem=%s, so its root is not empty",
			keys["TemporaryFileSystem"], keys["ProtectSystem"])
	}
}

// TestProviderUnitIsConfined holds the one unit that reaches out to its exposure, and to the folder and the file that the programs look
// for.
func TestProviderUnitIsConfined(t *testing.T) {
	out, err := analyze(t, standInUnits(t), "security", "--no-pager", "--offline=true", "--threshold=12", "rtask-provider.service")
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	unit := read(t, "systemd/rtask-provider.service")
	for _, want := range [][2]string{
		{"ExecStart", "/usr/bin/rtaskctl provider fetch"}, {"DynamicUser", "yes"}, {"StateDirectory", "rtask-provider"}, {"StateDirectoryMode", "0755"},
	} {
		if !slices.Contains(section(unit, "Service"), want) {
			t.Errorf("rtask-provider.service: no %s=%s", want[0], want[1])
		}
	}
	if !slices.Contains(section(unit, "Unit"), [2]string{"ConditionPathExists", "/run/rtask/" + handover.WantedName}) {
		t.Error("rtask-provider.service runs without providers")
	}
	watched := section(read(t, "systemd/rtask-provider.path"), "Path")
	for _, name := range []string{handover.WantedName, handover.AgainName} {
		if !slices.Contains(watched, [2]string{"PathChanged", "/run/rtask/" + name}) {
			t.Errorf("rtask-provider.path does not watch %s", name)
		}
	}
	// No other unit reaches the network.
	for _, file := range glob(t, "systemd/*.service") {
		for _, kv := range section(read(t, file), "Service") {
			if kv[0] == "RestrictAddressFamilies" && strings.Contains(kv[1], "INET") && filepath.Base(file) != "rtask-provider.service" {
				t.Errorf("%s may open sockets of the network", file)
			}
		}
	}
}

// TestEngineUnitIsNotInherited: jobs descend from rtaskd, so a directive that acts on processes would confine them, too.
func TestEngineUnitIsNotInherited(t *testing.T) {
	harmless := []string{
		"Type", "ExecStart", "ExecReload", "Sockets", "Restart", "RestartSec", "TimeoutStopSec", // of systemd's own doing
		"KillMode", "OOMPolicy", "IPAddressDeny", "DevicePolicy", // of the control group
		"LogRateLimitIntervalSec", "LogRateLimitBurst", // of journald, for what comes from this unit
		"LoadCredentialEncrypted", // files of root's, which no job's environment names
	}
	for _, kv := range section(read(t, "systemd/rtask.service"), "Service") {
		if !slices.Contains(harmless, kv[0]) {
			t.Errorf("rtask.service sets %s=, which jobs may inherit", kv[0])
		}
	}
}

// TestSockets holds the units together by the names that the programs look for.
func TestSockets(t *testing.T) {
	for _, s := range []struct{ unit, listen, name, service string }{
		{"rtask.socket", "/run/rtask/rtask.sock", "control", "rtask.service"},
		{"rtask-engine.socket", "/run/rtask/gateway.sock", "gateway", "rtask.service"},
		{"rtask-engine.socket", "/run/rtask/remote.sock", "gateway", "rtask.service"},
		{"rtask-gateway.socket", "127.0.0.1:8800", "api", "rtask-gateway.service"},
		{"rtask-metrics.socket", "127.0.0.1:9090", "metrics", "rtask-gateway.service"},
	} {
		got := section(read(t, "systemd/"+s.unit), "Socket")
		for _, want := range [][2]string{{"ListenStream", s.listen}, {"FileDescriptorName", s.name}, {"Service", s.service}} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: no %s=%s", s.unit, want[0], want[1])
			}
		}
		sockets := section(read(t, "systemd/"+s.service), "Service")
		i := slices.IndexFunc(sockets, func(kv [2]string) bool { return kv[0] == "Sockets" })
		if i < 0 || !slices.Contains(strings.Fields(sockets[i][1]), s.unit) {
			t.Errorf("%s: %s is not under Sockets=, so it is missing when the service is started by hand", s.service, s.unit)
		}
	}
	// HTTPS waits for a certificate and remote access for an authority, so nothing but an administrator brings their sockets. Each of
	// them ends a gateway that runs without it.
	again := read(t, "systemd/rtask-gateway-again.service")
	for name, port := range map[string]string{"https": "8443", "remote": "8843"} {
		unit := "rtask-" + name + ".socket"
		for _, want := range [][2]string{{"ListenStream", port}, {"FileDescriptorName", name}, {"Service", "rtask-gateway.service"}} {
			if !slices.Contains(section(read(t, "systemd/"+unit), "Socket"), want) {
				t.Errorf("%s: no %s=%s", unit, want[0], want[1])
			}
		}
		if !strings.Contains(read(t, "systemd/"+unit), "Wants=rtask-gateway-again.service") || !strings.Contains(again, "Before=rtask-https.socket rtask-remote.socket") || !strings.Contains(again, "rtask-(https|remote)[.]socket") {
			t.Errorf("%s and rtask-gateway-again.service do not know of each other", unit)
		}
	}
	for _, unit := range []string{"rtask.socket", "rtask-gateway.service"} {
		for _, name := range []string{"Unit", "Service", "Install"} {
			for _, kv := range section(read(t, "systemd/"+unit), name) {
				for _, late := range []string{"rtask-https.socket", "rtask-remote.socket"} {
					if kv[0] != "PartOf" && strings.Contains(kv[1], late) {
						t.Errorf("%s brings %s with %s=", unit, late, kv[0])
					}
				}
			}
		}
	}
	also := section(read(t, "systemd/rtask.socket"), "Install")
	wants := section(read(t, "systemd/rtask.socket"), "Unit")
	const rest = "rtask-engine.socket rtask-gateway.socket rtask-metrics.socket"
	if !slices.Contains(also, [2]string{"Also", rest + " rtask-resume.service"}) || !slices.Contains(wants, [2]string{"Wants", rest}) {
		t.Errorf("rtask.socket does not bring %s with Also= and Wants=", rest)
	}
}

// TestCatalog: every MESSAGE_ID= of the shim has an explanation.
func TestCatalog(t *testing.T) {
	catalog := read(t, "systemd/rtask.catalog")
	ids := regexp.MustCompile(`message\w+\s*=\s*"([0-9a-f]{32})"`).FindAllStringSubmatch(read(t, "../sandbox/shim/journal.go"), -1)
	if len(ids) == 0 {
		t.Fatal("no message ids in sandbox/shim/journal.go")
	}
	for _, id := range ids {
		if !strings.Contains(catalog, "-- "+id[1]+"\n") {
			t.Errorf("%s is not in rtask.catalog", id[1])
		}
	}
	if n := strings.Count(catalog, "\n-- "); n != len(ids) {
		t.Errorf("rtask.catalog explains %d messages, there are %d", n, len(ids))
	}
	// journalctl reads only catalogs in its own place, so it is told of another root.
	journalctl := tool(t, "journalctl")
	root := t.TempDir()
	for _, dir := range []string{"usr/lib/systemd/catalog", "var/lib/systemd/catalog"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/systemd/catalog/rtask.catalog"), []byte(catalog), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--update-catalog"}, append([]string{"--dump-catalog"}, ids[0][1])} {
		out, err := exec.Command(journalctl, append([]string{"--root=" + root}, args...)...).CombinedOutput()
		if err != nil || args[0] == "--dump-catalog" && !bytes.Contains(out, []byte("has started")) {
			t.Errorf("journalctl %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestManualsAreClean: groff has nothing to warn of.
func TestManualsAreClean(t *testing.T) {
	groff := tool(t, "groff")
	for _, page := range glob(t, "man/*.[158]") {
		out, err := exec.Command(groff, "-mandoc", "-Tutf8", "-ww", "-z", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// TestDirectives: systemd knows each directive that a limit is named after, and takes the example of its value.
func TestDirectives(t *testing.T) {
	unit := "[Service]\nExecStart=/bin/true\n"
	for _, s := range config.Settings() {
		if s.Directive != "" && (s.Block == "limits" || s.Block == "task") {
			unit += s.Directive + "=" + strings.Trim(s.Example, `"`) + "\n"
		}
	}
	if n := strings.Count(unit, "\n"); n < 30 {
		t.Fatalf("only %d lines of directives", n)
	}
	verify := func(unit string) string {
		dir := t.TempDir()
		file := filepath.Join(dir, "limits.service")
		if err := os.WriteFile(file, []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := analyze(t, dir, "verify", "--man=no", file)
		if err != nil {
			out += err.Error()
		}
		return out
	}
	if out := verify(unit); out != "" {
		t.Errorf("systemd-analyze verify:\n%s\nof\n%s", out, unit)
	}
	if out := verify(unit + "MemoryMux=1\nNice=20\n"); strings.Count(out, "\n") < 2 {
		t.Errorf("systemd-analyze verify takes anything: %q", out)
	}
}

// TestDefaultConfiguration: what rtask.hcl shows behind a # are settings, and those of no task with their defaults.
func TestDefaultConfiguration(t *testing.T) {
	file := read(t, "rtask.hcl")
	known := map[string]bool{"argon2": true, "retention": true, "defaults": true, "limits": true}
	for _, s := range config.Settings() {
		known[s.Name] = true
		shown := regexp.MustCompile(`(?m)^# *` + s.Name + ` *= (.*)$`).FindStringSubmatch(file)
		if s.Block != "" && s.Block != "argon2" && s.Block != "retention" || s.Default == "" || shown == nil && s.Name == "allow_plaintext" {
			continue
		}
		if shown == nil || shown[1] != s.Default {
			t.Errorf("rtask.hcl does not show %s = %s", s.Name, s.Default)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# *([a-z0-9_]+) *[={]`).FindAllStringSubmatch(file, -1) {
		if !known[m[1]] {
			t.Errorf("rtask.hcl shows %s, which there is not", m[1])
		}
	}
}

// TestProgramManuals: the manuals have every command and flag that the programs show in their help.
func TestProgramManuals(t *testing.T) {
	bin := testkit.Programs(t)
	help := func(args ...string) string {
		out, err := exec.Command(filepath.Join(bin, args[0]), append(args[1:], "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s --help: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	flags := regexp.MustCompile(`(?m)^   -+([A-Za-z][a-z-]*)(?:.*, -([a-z])\b)?`)
	commands := func(text string) []string {
		_, text, _ = strings.Cut(text, "\nCOMMANDS:\n")
		text, _, _ = strings.Cut(text, "\n\n")
		var names []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "    ") { // the rest of the one before
				continue
			}
			names = append(names, strings.Trim(strings.Fields(line)[0], ","))
		}
		return names
	}
	check := func(page string, args ...string) string {
		manual, text := read(t, page), help(args...)
		for _, m := range flags.FindAllStringSubmatch(text, -1) {
			for _, name := range m[1:] {
				macro := "Fl " + name
				if len(name) > 1 {
					macro = "Fl -" + name
				}
				if name != "" && !regexp.MustCompile(regexp.QuoteMeta(macro)+`\b`).MatchString(manual) {
					t.Errorf("%s: %s of %q is missing", page, macro, strings.Join(args, " "))
				}
			}
		}
		return text
	}
	check("man/rtaskd.8", "rtaskd")
	check("man/rtaskd.8", "rtaskd", "run")
	check("man/rtask-gateway.8", "rtask-gateway")
	const page = "man/rtaskctl.1"
	for _, command := range commands(check(page, "rtaskctl")) {
		if command == "help" {
			continue
		}
		names := []string{command}
		if sub := commands(check(page, "rtaskctl", command)); len(sub) > 0 {
			names = nil
			for _, s := range sub {
				check(page, "rtaskctl", command, s)
				names = append(names, command+" "+s)
			}
		}
		for _, name := range names {
			if !regexp.MustCompile(`(?m)^\.It Ic ` + name + `( |$)`).MatchString(read(t, page)) {
				t.Errorf("%s: the command %q is missing", page, name)
			}
		}
	}
}

// README.md says which Go it takes.
func TestReadmeNamesGo(t *testing.T) {
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if m == nil || !strings.Contains(read(t, "../README.md"), "Go "+m[1]+" or newer") {
		t.Errorf("README.md does not say that Go %s is needed", m)
	}
}

// TestNoStartLimit: no unit gives up after some starts; see rtask.service. rtask-resume.service starts once at a boot.
func TestNoStartLimit(t *testing.T) {
	units := 0
	for _, unit := range glob(t, "systemd/rtask*") {
		if !slices.Contains([]string{".service", ".socket", ".path", ".timer"}, filepath.Ext(unit)) || filepath.Base(unit) == "rtask-resume.service" {
			continue
		}
		units++
		if !slices.Contains(section(read(t, unit), "Unit"), [2]string{"StartLimitIntervalSec", "0"}) {
			t.Errorf("%s has a limit on starts", unit)
		}
	}
	if units < 5 {
		t.Errorf("%d units were looked at", units)
	}
}
