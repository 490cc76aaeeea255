package daemon

import (
	"fmt"
	"maps"
	"math/big"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
)

// extreme is a setting with a value at an end of what is accepted.
type extreme struct {
	config.Setting
	// what says which end.
	what, value string
	// root is rtask.hcl with it, and tasks the tasks.
	root, tasks string
}

func (e extreme) name() string {
	return strings.ReplaceAll(strings.Trim(e.Block+"-"+e.Name+"-"+e.what, "-"), "_", "-")
}

// around returns the ways in which a setting can stand in a configuration. One of them has what it needs beside it.
func around(s config.Setting, task, value string) []extreme {
	line := s.Name + " = " + value + "\n"
	inTask := func(body string) extreme {
		return extreme{tasks: fmt.Sprintf("task %q {\n%s}\n", task, body)}
	}
	const command = "command = [\"/bin/true\"]\n"
	switch s.Block {
	case "":
		return []extreme{{root: line}}
	case "argon2", "retention", "remote", "authority":
		return []extreme{{root: s.Block + " {\n" + line + "}\n"}}
	case "provider":
		var all []extreme
		for _, rest := range []string{
			"issuer = \"https://sso.example.org\"\nclient_id = \"c\"\n", "issuer = \"https://sso.example.org\"\n", "client_id = \"c\"\n",
			"issuer = \"https://sso.example.org\"\naudience = \"https://build.example.org\"\n",
		} {
			all = append(all, extreme{root: "provider \"p\" {\n" + line + rest + "}\n"})
		}
		return all
	case "role":
		const subjects, methods, tasks = "subjects = [\"CN=ops\"]\n", "methods = [\"run\"]\n", "tasks = [\"*\"]\n"
		const as, commands = "run_as = \"daemon\"\n", "commands = true\n"
		const providers = `
provider "corp" {
  issuer    = "https://sso.example.org"
  client_id = "c"
}
provider "github" {
  issuer   = "https://token.actions.githubusercontent.com"
  audience = "https://build.example.org:8843"
  require  = { repository_id = "1" }
}
`
		var all []extreme
		for _, rest := range []string{
			subjects + methods + tasks + as, methods + tasks + as, subjects + tasks + as, subjects + methods + as, subjects + methods + tasks + commands,
			subjects + methods + tasks, subjects + methods, methods + tasks, subjects + tasks,
		} {
			all = append(all, extreme{root: providers + "role \"r\" {\n" + line + rest + "}\n"})
		}
		return all
	case "defaults":
		e := inTask(command)
		e.root = "defaults {\n" + line + "}\n"
		return []extreme{e}
	case "task":
		if s.Name == "command" {
			return []extreme{inTask(line)}
		}
		return []extreme{inTask(command + line)}
	case "param":
		return []extreme{inTask(command + "param \"p\" {\n" + line + "}\n")}
	case "webhook":
		hmac := "verify = \"hmac\"\nheader = \"X-Signature\"\nsecrets = [\"0123456789abcdef\"]\n"
		params := ""
		if s.Name == "params" { // of what its example names
			params = "param \"version\" {\ndefault = \"v\"\n}\n"
		}
		var all []extreme
		for _, rest := range []string{
			"", "verify = \"github\"\n", "token = \"0123456789abcdef" + task + "\"\n", "verify = \"github\"\nsecrets = [\"0123456789abcdef\"]\n",
			"verify = \"hmac-sha256\"\nheader = \"X-Signature\"\nsecrets = [\"0123456789abcdef\"]\n",
			"verify = \"hmac-sha256\"\nsecrets = [\"0123456789abcdef\"]\n", "secrets = [\"0123456789abcdef\"]\n",
			"token = \"0123456789abcdef" + task + "\"\nmessage = \"ok\"\n", hmac + "hash = \"sha256\"\n", hmac,
			"verify = \"meta\"\nsecrets = [\"0123456789abcdef\"]\n",
			hmac + "hash = \"sha256\"\ntimestamp = header(\"X-Time\")\n", hmac + "hash = \"sha256\"\nsigned = \"{timestamp}.{body}\"\n",
		} {
			all = append(all, inTask(command+params+"webhook \"w\" {\n"+line+rest+"}\n"))
		}
		return all
	case "schedule":
		return []extreme{
			inTask(command + "schedule {\n" + line + "}\n"), inTask(command + "schedule {\non_calendar = [\"*-01-01 03:00\"]\n" + line + "}\n"),
		}
	default:
		return []extreme{inTask(command + s.Block + " {\n" + line + "}\n")}
	}
}

// notify is the task that the examples of on_failure and on_success name.
const notify = "task \"notify\" { command = [\"/bin/true\"] }\n"

// loader tries configurations in a folder of its own.
type loader struct {
	*testing.T
	options config.Options
	// way is which of the ways in which a setting can stand in a configuration has what it needs beside it, -1: not known yet.
	way int
}

// try returns the configuration that has a setting with a value, or why there is none.
func (l *loader) try(s config.Setting, what, value string) (extreme, config.Diagnostics) {
	l.Helper()
	var diags config.Diagnostics
	name := extreme{Setting: s, what: what}.name()
	for i, e := range around(s, name, value) {
		if l.way >= 0 && i != l.way {
			continue
		}
		e.Setting, e.what, e.value = s, what, value
		write(l, l.options.File, e.root)
		write(l, filepath.Join(l.options.Dir, "a.hcl"), e.tasks+notify)
		if _, diags = config.Load(l.options); !diags.HasErrors() {
			l.way = i
			return e, diags
		}
	}
	return extreme{}, diags
}

// slack is how much longer a text may be than what is filled in, by what stands around it.
const slack = len("https://") + 1

// shapes are the ways to write a number, and of a text the characters that make it longer.
var numbers, texts = []string{"%s", `"%s%%"`, `"/dev/null %s"`, `[%s]`, `"%s-4000000000"`, `"70000-%s"`},
	[]string{`"%s"`, `["%s"]`, `"/%s"`, `["/%s"]`, `["/%s:/%[1]s"]`, `["%s:/%[1]s"]`, `"https://%s"`, `{ A = "%s" }`, `["refs/%s"]`}

// extremesOf finds the ends of what is accepted: the smallest and the largest number, the shortest and the longest text. What is
// one step beyond is refused, and the error says where the end is.
func (l *loader) extremesOf(s config.Setting) []extreme {
	l.Helper()
	l.way = -1
	e, diags := l.try(s, "example", strings.ReplaceAll(s.Example, "…", strings.Repeat("0", 64)))
	if diags.HasErrors() {
		l.Errorf("%s %s: its own example is refused: %v", s.Block, s.Name, diags)
		return nil
	}
	found := []extreme{e}
	if s.Block == "defaults" {
		return found // it has the tables of a task
	}
	accepted := func(shape string, n *big.Int, fill func(*big.Int) string) bool {
		_, diags := l.try(s, "x", fmt.Sprintf(shape, fill(n)))
		return !diags.HasErrors()
	}
	ends := func(shape, low, high string, least, most *big.Int, fill func(*big.Int) string) {
		var seed *big.Int
		for _, n := range []int64{1, 20, 100_000, 20 << 20} {
			if b := big.NewInt(n); b.Cmp(most) <= 0 && accepted(shape, b, fill) {
				seed = b
				break
			}
		}
		if seed == nil {
			return
		}
		// Between in, which is accepted, and out, which is not, the end is found: where the error says, or by halving.
		end := func(in, out *big.Int) (last, beyond *big.Int) {
			_, diags := l.try(s, "x", fmt.Sprintf(shape, fill(out)))
			if !diags.HasErrors() {
				return out, nil
			}
			for _, text := range regexp.MustCompile(`\d{2,}`).FindAllString(diags.Error(), -1) {
				n, _ := new(big.Int).SetString(text, 10)
				for range slack {
					next := new(big.Int).Add(n, big.NewInt(1))
					if n.Cmp(in) > 0 && next.Cmp(out) < 0 && accepted(shape, n, fill) {
						if !accepted(shape, next, fill) {
							return n, next
						}
						break
					}
					n.Sub(n, big.NewInt(1))
				}
			}
			in, out = new(big.Int).Set(in), new(big.Int).Set(out)
			for {
				d := new(big.Int).Sub(out, in)
				if d.CmpAbs(big.NewInt(1)) <= 0 {
					return in, out
				}
				if middle := new(big.Int).Add(in, d.Quo(d, big.NewInt(2))); accepted(shape, middle, fill) {
					in = middle
				} else {
					out = middle
				}
			}
		}
		for what, limit := range map[string]*big.Int{low: least, high: most} {
			last, beyond := end(seed, limit)
			e, diags := l.try(s, what, fmt.Sprintf(shape, fill(last)))
			if diags.HasErrors() {
				l.Errorf("%s %s = %v: %v", s.Block, s.Name, last, diags)
				continue
			}
			found = append(found, e)
			if beyond == nil || beyond.Sign() < 0 || what == low && shape != "%s" {
				continue
			}
			_, diags = l.try(s, what, fmt.Sprintf(shape, fill(beyond)))
			switch {
			case !diags.HasErrors():
				l.Errorf("%s %s: %v is accepted now", s.Block, s.Name, beyond)
			case diags.HasErrors() && !names(diags.Error(), last, beyond):
				l.Errorf("%s %s: %v is accepted and %v is not, and the error does not say so:\n%v", s.Block, s.Name, last, beyond, shorten(diags.Error()))
			}
		}
	}
	for _, shape := range numbers {
		if !strings.ContainsAny(s.Example, "0123456789") || len(found) > 1 {
			continue
		}
		ends(shape, "least", "most", big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 70), func(n *big.Int) string { return n.String() })
	}
	if len(found) == 1 {
		most := big.NewInt(5000) // all texts are read by one function, and long ones take long to read under the race detector
		if s.Name == "command" || s.Name == "environment" {
			most = big.NewInt(140_000)
		}
		for _, shape := range texts {
			if shape[:1] != s.Example[:1] || len(found) > 1 {
				continue
			}
			ends(shape, "shortest", "longest", new(big.Int), most, func(n *big.Int) string { return strings.Repeat("a", int(n.Int64())) })
		}
	}
	if first := "n"; strings.HasPrefix(s.Example, "[") {
		if strings.HasPrefix(s.Example, `["/`) {
			first = "/n"
		}
		ends("[%s]", "one", "many", new(big.Int), big.NewInt(200), func(n *big.Int) string {
			var all []string
			for i := range n.Int64() {
				all = append(all, fmt.Sprintf("%q", fmt.Sprintf("%s%d", first, i)))
			}
			return strings.Join(all, ", ")
		})
	}
	if s.Example == "true" || s.Example == "false" {
		for _, v := range []string{"true", "false"} {
			if e, diags := l.try(s, v, v); diags.HasErrors() {
				l.Errorf("%s %s = %s: %v", s.Block, s.Name, v, diags)
			} else {
				found = append(found, e)
			}
		}
	}
	return found
}

// names reports whether a text has a number in one of the ways it may be written, or says what is wrong with the other one.
func names(text string, last, beyond *big.Int) bool {
	var ways []string
	for i := range int64(slack) {
		ways = append(ways, new(big.Int).Add(last, big.NewInt(i)).String())
	}
	n, unit := new(big.Int).Set(last), big.NewInt(1024)
	for _, suffix := range []string{"K", "M", "G", "T", "P", "E"} {
		if q, r := new(big.Int).QuoRem(n, unit, new(big.Int)); r.Sign() == 0 && q.Sign() > 0 {
			n = q
			ways = append(ways, n.String()+suffix)
		}
	}
	if q, r := new(big.Int).QuoRem(last, big.NewInt(31557600), new(big.Int)); r.Sign() == 0 {
		ways = append(ways, q.String()+"y")
	}
	for suffix, seconds := range map[string]int64{"m": 60, "h": 3600, "d": 86400} {
		if q, r := new(big.Int).QuoRem(last, big.NewInt(seconds), new(big.Int)); r.Sign() == 0 && q.Sign() > 0 {
			ways = append(ways, " "+q.String()+suffix+" ")
		}
	}
	if last.Cmp(big.NewInt(1)) == 0 && beyond.Sign() == 0 {
		ways = append(ways, "above 0", "without", "with 0")
	}
	if strings.Contains(text, "too long") { // ENAMETOOLONG
		return true
	}
	return slices.ContainsFunc(ways, func(way string) bool { return strings.Contains(text, way) })
}

func shorten(text string) string {
	if len(text) > 1000 {
		text = text[:1000] + "…"
	}
	return text
}

// TestExtremes tries the ends of what each setting may be: an engine starts with it, takes it at a reload without an error, and
// answers after each task was started that has one of them.
func TestExtremes(t *testing.T) {
	var ofTasks []extreme
	blocks := map[string]bool{}
	live, tries := t.TempDir(), t.TempDir()
	l := &loader{t, newSettings(options(tries), nil).options, -1}
	reloaded := run(t, live)
	for _, s := range config.Settings() {
		blocks[s.Block] = true
		for _, e := range l.extremesOf(s) {
			if e.root == "" {
				ofTasks = append(ofTasks, e)
				continue
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "rtask.hcl"), e.root)
			write(t, filepath.Join(dir, "tasks.d", "a.hcl"), e.tasks+notify)
			r := run(t, dir)
			if _, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{}); err != nil {
				t.Errorf("%s = %s: %v", e.name(), shorten(e.value), err)
			} else if e.tasks != "" {
				r.startAll(t, e)
			}
			r.stop(t)
			write(t, filepath.Join(live, "rtask.hcl"), e.root)
			write(t, filepath.Join(live, "tasks.d", "a.hcl"), e.tasks+notify)
			reloaded.take(t, e)
		}
	}
	if want := 17; len(blocks) != want {
		t.Errorf("settings stand in %v", slices.Sorted(maps.Keys(blocks)))
	}
	// All tasks at once.
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tasks.d", "notify.hcl"), notify)
	for i, e := range ofTasks {
		write(t, filepath.Join(dir, "tasks.d", fmt.Sprintf("%d.hcl", i)), e.tasks)
	}
	r := run(t, dir)
	if got := len(strings.Fields(r.tasks(t))); got != len(ofTasks)+1 {
		t.Fatalf("%d tasks of %d\n%s", got, len(ofTasks), shorten(r.logs.String()))
	}
	r.startAll(t, ofTasks...)
	t.Logf("%d extremes of tasks", len(ofTasks))
}

// take has an engine read a configuration again.
func (r *running) take(t *testing.T, e extreme) {
	t.Helper()
	before := len(r.logs.String())
	reply, err := r.Jobs.Reload(t.Context(), &rtaskv1.ReloadRequest{})
	if err != nil {
		t.Fatalf("%s: %v", e.name(), err)
	}
	for _, d := range reply.Diagnostics {
		if d.Error {
			t.Errorf("%s: %s", e.name(), d.Text)
		}
	}
	if added := r.logs.String()[before:]; strings.Contains(added, "<3>") || strings.Contains(added, "ERROR") {
		t.Errorf("%s: %s", e.name(), added)
	}
}

// startAll starts the tasks of extremes, which may end as they like, and sees that the engine still answers.
func (r *running) startAll(t *testing.T, all ...extreme) {
	t.Helper()
	for _, e := range all {
		started, err := r.Jobs.Start(t.Context(), &rtaskv1.StartRequest{Name: e.name()})
		switch connect.CodeOf(err) {
		case connect.CodeUnavailable, connect.CodeInvalidArgument, connect.CodeFailedPrecondition: // what this machine does not have
		default:
			if err != nil {
				t.Errorf("%s = %s: %v", e.name(), shorten(e.value), err)
				continue
			}
			if _, err := r.Jobs.Wait(t.Context(), &rtaskv1.WaitRequest{Job: started.Job.Id}); err != nil {
				t.Errorf("%s = %s: %v", e.name(), shorten(e.value), err)
			}
		}
	}
	if _, err := r.Jobs.Info(t.Context(), &rtaskv1.InfoRequest{}); err != nil {
		t.Fatal(err)
	}
}
