package config

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// one decodes a task in native syntax.
func one(text string) (*Task, Diagnostics) {
	cfg, diags := build([]*source{{name: "t.hcl", data: []byte(text)}}, Options{})
	return cfg.Tasks["t"], diags
}

// TestRefused has a line of a task for each rule, the column of the one error in it, and a part of what is said.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		line   string
		column int
		want   string
	}{
		{`command = "make deploy"`, 11, `command = ["make", "deploy"]`},
		{`command = "a | b"`, 11, `command = ["/bin/sh", "-c", "a | b"]`},
		{`command = []`, 11, "command is empty"},
		{`command = [""]`, 12, "command[0] is empty"},
		{`command = ["a", 5]`, 17, `Put it in quotes: "5"`},
		{`command = ["a", null]`, 17, "command[1] must be a string, not null"},
		{`command = ["a", ["b"]]`, 17, "command[1] must be a string, not a list"},
		{`command = ["a\u0000"]`, 12, "NUL"},
		{`command = ["a", "b\u0000"]`, 17, "NUL"},
		{`command = ["a", "` + strings.Repeat("x", maxArgument+1) + `"]`, 17, "longer than"},
		{`command = {}`, 11, "not an object"},
		{`command = null`, 11, "not null"},
		{`command = ["a", "${HOME}"]`, 18, `write "$${"`},
		{`command = ["a", "${HOME:-x}"]`, 18, `write "$${"`},
		{`command = ["a", "${1}"]`, 18, `write "$${"`},
		{`command = ["a", "%{http_code}"]`, 18, `write "%%{"`},
		{`command = ["a", HOME]`, 17, `Put a string in quotes: "HOME"`},
		{`command = ["a", file("x")]`, 17, "unknown function file"},
		{`command = [for x in ["a"] : x]`, 11, "must be written out"},
		{`workdir = "srv"`, 11, "not absolute"},
		{`workdir = ""`, 11, "workdir is empty"},
		{`workdir = "/srv/../etc"`, 11, `"/etc"`},
		{`workdir = "/srv/.."`, 11, `".."`},
		{`workdir = "/a\u0000b"`, 11, "NUL"},
		{`user = "rtask-gateway"`, 8, "must not be"},
		{`group = "rtask-gateway"`, 9, "must not be"},
		{`supplementary_groups = ["rtask-gateway"]`, 25, "must not be"},
		{`user = ""`, 8, "user is empty"},
		{`user = 1000`, 8, `Put it in quotes: "1000"`},
		{`user = "a:b"`, 8, "cannot be the name of a user"},
		{`user = "-a"`, 8, "cannot be the name of a user"},
		{`user = "4294967295"`, 8, "is no number of a user"},
		{`user = "65535"`, 8, "is no number of a user"},
		{`user = "99999999999"`, 8, "is no number of a user"},
		{`group = "a b"`, 9, "cannot be the name of a group"},
		{`allow_users = ["a/b"]`, 16, "cannot be the name of a user"},
		{`allow_users = "alice"`, 15, "allow_users must be a list, not a string"},
		{`allow_groups = ["a", "a"]`, 22, "a second time"},
		{`api_keys = ["Bad"]`, 13, "cannot be the name of a key"},
		{`api_keys = ["-a"]`, 13, "cannot be the name of a key"},
		{`api_keys = ["` + strings.Repeat("a", 64) + `"]`, 13, "cannot be the name of a key"},
		{`enabled = "true"`, 11, "enabled must be true or false, not a string"},
		{`blocking = 1`, 12, "blocking must be true or false, not a number"},
		{`timeout = -1`, 11, "negative"},
		{`timeout = "-5s"`, 11, "negative"},
		{`timeout = "5 parsecs"`, 11, `"parsecs" is no unit`},
		{`timeout = ""`, 11, "it is empty"},
		{`timeout = "1..5s"`, 11, "is no number"},
		{`timeout = "300y"`, 11, "too long"},
		{`timeout = true`, 11, "timeout must be a duration, not true or false"},
		{`timeout = 1e999999`, 11, "timeout"},
		{`timeout = 5 * 60`, 11, "must be written out"},
		{`timeout = -x`, 11, "must be written out"},
		{`timeout = true ? 1 : 2`, 11, "must be written out"},
		{`timeout_stop_sec = "infinity"`, 20, "it must end"},
		{`retention = "infinity"`, 13, "it must end"},
		{`kill_signal = "SIGTERN"`, 15, `did you mean "SIGTERM"?`},
		{`kill_signal = "sigterm"`, 15, `did you mean "SIGTERM"?`},
		{`kill_signal = 0`, 15, "signals are 1 to 64"},
		{`kill_signal = 65`, 15, "signals are 1 to 64"},
		{`kill_signal = "SIGRTMIN+31"`, 15, "none named"},
		{`kill_signal = [9]`, 15, "a signal, not a list"},
		{`max_input_bytes = -1`, 19, "negative"},
		{`max_input_bytes = "16KB"`, 19, "is no suffix; suffixes are K, M"},
		{`max_input_bytes = "16k"`, 19, "is no suffix; suffixes are K, M"},
		{`max_input_bytes = "x"`, 19, "does not begin with a number"},
		{`max_input_bytes = "16KM"`, 19, "no suffix"},
		{`max_input_bytes = 1.5`, 19, "no parts of a byte"},
		{`max_output_bytes = "infinity"`, 20, "must have an end"},
		{`max_output_bytes = "8E"`, 20, "too large"},
		{`log_max_bytes = 1e30`, 17, "log_max_bytes is not a size"},
		{`environment = ["A=b"]`, 15, "environment must be an object, not a list"},
		{`environment = { A = 1 }`, 21, `Put it in quotes: "1"`},
		{`environment = { A = "\u0000" }`, 21, "NUL"},
		{`environment = { "A B" = "1" }`, 17, "is not the name of a variable"},
		{`environment = { "" = "1" }`, 17, "is not the name of a variable"},
		{`environment = { "1A" = "1" }`, 17, "is not the name of a variable"},
		{`environment = { A-B = "1" }`, 17, "is not the name of a variable"},
		{`environment = { (A) = "1" }`, 17, "must be written out"},
		{`environment = { RTASK_X = "1" }`, 17, "RTASK_ are reserved"},
		{`environment = { REQUEST_HEADER_X = "1" }`, 17, "REQUEST_HEADER_ are reserved"},
		{`environment = { A = "1", A = "2" }`, 26, "twice"},
		{`environment = { A = "` + strings.Repeat("x", maxArgument-1) + `" }`, 21, "longer than"},
		{`environment { }`, 1, "Write: environment = {"},
		{`limits = {}`, 1, "Write: limits { … }"},
		{`limits "x" { }`, 8, "too much"},
		{`comand = "x"`, 1, `Did you mean "command"?`},
		{`time-out = "x"`, 1, `Did you mean "timeout"?`},
		{`TimeoutStopSec = "x"`, 1, `Did you mean "timeout_stop_sec"?`},
		{`memory_max = "1G"`, 1, "memory_max belongs in limits { … }."},
		{`MemoryMax = "1G"`, 1, "memory_max belongs in limits { … }."},
		{`comamnd = ["x"]`, 1, `Did you mean "command"?`},
		{`max_jobs = 1`, 1, "belongs in rtask.hcl."},
		{`limit { }`, 1, `Did you mean "limits"?`},
		{`task "x" { }`, 1, "belongs in a file of tasks.d."},
		{`private_tmp = false`, 1, "private_tmp belongs in sandbox { … }."},
		{`keep = "1s"`, 1, "keep belongs in pool { … }."},
		{"pool {\nwarm = 101\n}", 8, "warm must be from 0 to 100, not 101"},
		{`max_concurrent = -1`, 18, `max_concurrent must be from 0 to 1000000, not -1`},
		{`overflow = "drop"`, 12, `overflow must be reject or queue or coalesce, not "drop"`},
		{`schedules "x" { }`, 1, `unknown name "schedules" in a task`},
		{`schedule "x" { }`, 10, `"x" is too much here`},
		{`webhook { }`, 1, `webhook has no name`},
		{`webhook "X" { }`, 9, `"X" cannot be the name of a webhook`},
		{`webhook "x" { }`, 1, `webhook "x" must have one of token_file, token and token_hash`},
		{"webhook \"x\" {\ntoken = \"\"\n}", 9, "token is empty"},
		{"webhook \"x\" {\ntoken = \"a/b\"\n}", 1, "a token is part of a URL"},
		{"webhook \"x\" {\ntoken = \"a%20b\"\n}", 1, "a token is part of a URL"},
		{"webhook \"x\" {\ntoken = \"..\"\n}", 1, "a token is part of a URL"},
		{"webhook \"x\" {\ntoken = \"aaaaaaaaaaaaaaaa\"\ntoken_file = \"/x\"\n}", 1, "must have one of"},
		{"webhook \"x\" {\ntoken_hash = \"abc\"\n}", 14, "sha256: and 64 digits"},
		{"webhook \"x\" {\ntoken_hash = \"sha256:abc\"\n}", 14, "sha256: and 64 digits"},
		{"webhook \"x\" {\ntoken = \"aaaaaaaaaaaaaaaa\"\nsecrets = [\"bbbbbbbbbbbbbbbb\"]\n}", 11, `secrets means nothing with verify = "token"`},
		{"webhook \"x\" {\nverify = \"githb\"\n}", 10, `verify must be token or github or`},
		{"webhook \"x\" {\nverify = \"github\"\n}", 1, `webhook "x" has no secret`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = []\n}", 1, `its lists are empty`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"\"]\n}", 12, `secrets[0] is empty`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = \"a\"\n}", 11, `secrets must be a list`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\ntoken = \"aaaaaaaaaaaaaaaa\"\n}", 9, `token means nothing with verify = "github"`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nheader = \"X\"\n}", 10, `header means nothing with verify = "github"`},
		{"webhook \"x\" {\nverify = \"github\"\nsecret_files = [\"a\"]\n}", 17, `the path "a" is not absolute`},
		{"webhook \"x\" {\nverify = \"github\"\ncredentials = [\"../a\"]\n}", 16, `"../a" cannot be the name of a credential`},
		{"webhook \"x\" {\nverify = \"standard\"\nsecrets = [\"whsec_!\"]\n}", 1, `it must be whsec_ and base64`},
		{"webhook \"x\" {\nverify = \"hmac-sha256\"\nsecrets = [\"a\"]\n}", 1, `does not say which header`},
		{"webhook \"x\" {\nverify = \"hmac-sha256\"\nsecrets = [\"a\"]\nheader = \"a b\"\n}", 10, `"a b" cannot be the name of a header`},
		{"webhook \"x\" {\nverify = \"hmac-sha256\"\nsecrets = [\"a\"]\nheader = \"X\"\nencoding = \"rot13\"\n}", 12, `encoding must be hex or base64`},
		{"webhook \"x\" {\nverify = \"slack\"\nsecrets = [\"a\"]\nreplay = \"run\"\n}", 10, `a repeat never runs again`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nreplay = \"no\"\n}", 10, `replay must be refuse or run`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nrefs = [\"main\"]\n}", 9, `Write it in full: "refs/heads/main"`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nrefs = [\"refs/heads/[a-z]\"]\n}", 9, `cannot be the name of a branch`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nrespond = \"later\"\n}", 11, `respond must be accepted or result`},
		{"webhook \"x\" {\nverify = \"github\"\nsecrets = [\"a\"]\nmax_input = 1\n}", 1, `Did you mean "max_input_bytes"?`},
		{"webhook \"x\" {\ntoken = \"aaaaaaaaaaaaaaaa\"\n}\nwebhook \"x\" {\ntoken = \"bbbbbbbbbbbbbbbb\"\n}", 9, `webhook "x" of task "t" is defined twice`},
		{"webhook \"x\" {\ntoken = \"aaaaaaaaaaaaaaaa\"\n}\nwebhook \"y\" {\ntoken = \"aaaaaaaaaaaaaaaa\"\n}", 1, `webhook "y" has the token of webhook "x" of task "t"`},
		{`verify = "github"`, 1, `verify belongs in webhook "NAME" { … }.`},
		{`pass_request_headers = ["a b"]`, 25, `"a b" cannot be the name of a header`},
		{`pass_request_headers = ["authorization"]`, 25, `authorization cannot be passed on`},
		{`pass_request_headers = ["X-A", "X_A"]`, 32, `X-A and X_A would both be REQUEST_HEADER_X_A`},
		{`no_new_privileges = true`, 1, `unknown name "no_new_privileges" in a task`},
		{"limits {\nmemory_max = 0\n}", 14, "nothing can run without memory"},
		{"limits {\nmemory_max = -1\n}", 14, "negative"},
		{"limits {\nmemory_max = \"50%\"\n}", 14, "percentage"},
		{"limits {\nmemory_max = []\n}", 14, "a size, not a list"},
		{"limits {\ntasks_max = 0\n}", 13, "without a process"},
		{"limits {\ntasks_max = \"50%\"\n}", 13, "percentage"},
		{"limits {\ntasks_max = 1.5\n}", 13, "no whole number"},
		{"limits {\ntasks_max = 4194305\n}", 13, "4194304"},
		{"limits {\ncpu_quota = \"0%\"\n}", 13, "least that Linux can give"},
		{"limits {\ncpu_quota = \"0.09%\"\n}", 13, "least that Linux can give"},
		{"limits {\ncpu_quota = \"1.001%\"\n}", 13, "more than two decimals"},
		{"limits {\ncpu_quota = 150\n}", 13, "no percent sign"},
		{"limits {\ncpu_quota = \"-1%\"\n}", 13, "negative"},
		{"limits {\ncpu_quota = \"99999999999%\"\n}", 13, "too large"},
		{"limits {\ncpu_max = \"1%\"\n}", 1, `unknown name "cpu_max" in limits`},
		{"limits {\n}\nlimits {\n}", 1, "limits is given twice"},
		{"timeout = 1\ntimeout = 2", 1, "attribute redefined"},
	} {
		text := "task \"t\" {\n" + c.line + "\n"
		if !strings.HasPrefix(c.line, "command") {
			text += "command = [\"true\"]\n"
		}
		_, diags := one(text + "}\n")
		name := c.line
		if len(name) > 50 {
			name = name[:50]
		}
		if len(diags) != 1 || diags[0].Severity != SeverityError || diags[0].Column != c.column {
			t.Errorf("%s: want one error at column %d, got:\n%v", name, c.column, diags)
			continue
		}
		if got := diags[0].Summary + "\n" + diags[0].Detail; !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in:\n%s", name, c.want, got)
		}
	}
}

// TestRefusedInRoot is TestRefused for rtask.hcl.
func TestRefusedInRoot(t *testing.T) {
	for _, c := range []struct {
		line   string
		column int
		want   string
	}{
		{`max_jobs = 0`, 12, "from 1 to"},
		{`max_jobs = -1`, 12, "from 1 to"},
		{`max_jobs = 1.5`, 12, "whole number"},
		{`max_jobs = "x"`, 12, "whole number"},
		{`max_jobs = 1000001`, 12, "from 1 to"},
		{`limits_unavailable = "ignore"`, 22, "must be refuse or warn"},
		{`limits_unavailable = true`, 22, "must be a string"},
		{`dynamic_uids = "70000"`, 16, "two uids"},
		{`dynamic_uids = "a-b"`, 16, "two uids"},
		{`dynamic_uids = "1-2-3"`, 16, "two uids"},
		{`dynamic_uids = "70001-70000"`, 16, "its end is before"},
		{`dynamic_uids = "0-70000"`, 16, "below 1000"},
		{`dynamic_uids = "60000-70000"`, 16, "nobody"},
		{`dynamic_uids = "65535-70000"`, 16, "65535"},
		{`dynamic_uids = "70000-4294967295"`, 16, "is no uid"},
		{`dynamic_uids = "70000-4294967296"`, 16, "two uids"},
		{`dynamic_uids = 70000`, 16, "must be a string"},
		{"argon2 {\nmemory = \"18M\"\n}", 1, "too weak"},
		{"argon2 {\nmemory = 19456\n}", 1, "too weak"},
		{"argon2 {\ntime = 1\n}", 1, "too weak"},
		{"argon2 {\nmemory = \"6M\"\ntime = 64\n}", 1, "too weak"},
		{"argon2 {\nmemory = \"5G\"\n}", 10, "1G at most"},
		{"argon2 {\ntime = 0\n}", 8, "from 1 to 64"},
		{"argon2 {\nthreads = 256\n}", 11, "from 1 to 64"},
		{"argon2 {\n}\nargon2 {\n}", 1, "given twice"},
		{"retention {\nkeep_for = 0\n}", 12, "above 0"},
		{"retention {\nkeep_for = \"30 fortnights\"\n}", 12, "no unit"},
		{"retention {\nkeep_bytes = \"0\"\n}", 14, "above 0"},
		{"retention {\nkeep_bytes = \"2X\"\n}", 14, "no suffix"},
		{"retention {\nkeep_jobs = 0\n}", 13, "from 1 to"},
		{"retention {\nkeep_jobs = \"many\"\n}", 13, "whole number"},
		{"retention {\nkeep_job = 1\n}", 1, `Did you mean "keep_jobs"?`},
		{"defaults {\ncommand = [\"a\"]\n}", 1, "It cannot be a default"},
		{"defaults {\nenabled = false\n}", 1, "It cannot be a default"},
		{"defaults {\ntimeot = 1\n}", 1, `Did you mean "timeout"?`},
		{"defaults {\nuser = \"rtask-gateway\"\n}", 8, "must not be"},
		{"defaults {\nlimits {\ntasks_max = 0\n}\n}", 13, "without a process"},
		{"defaults {\nenvironment = { RTASK_A = \"\" }\n}", 17, "reserved"},
		{`task "x" { }`, 1, "belongs in a file of tasks.d."},
		{`timeout = 1`, 1, "belongs in a task."},
		{`idle_exit = "1h"`, 1, `unknown name "idle_exit" in rtask.hcl`},
	} {
		_, diags := build([]*source{{name: "rtask.hcl", data: []byte(c.line), root: true}}, Options{})
		if len(diags) != 1 || diags[0].Severity != SeverityError || diags[0].Column != c.column {
			t.Errorf("%s: want one error at column %d, got:\n%v", c.line, c.column, diags)
			continue
		}
		if got := diags[0].Summary + "\n" + diags[0].Detail; !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in:\n%s", c.line, c.want, got)
		}
	}
}

// TestRefusedInJSON has what is other in JSON than in native syntax.
func TestRefusedInJSON(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"task": {"t": {"command": ["a", "${HOME}"]}}}`, `write "$${"`},
		{`{"task": {"t": {"command": ["a", "%{if}"]}}}`, `write "%%{"`},
		{`{"task": {"t": {"command": ["a"], "environment": {"A": "${X}"}}}}`, `write "$${"`},
		{`{"task": {"t": {"command": ["a"], "comand": 1}}}`, `Did you mean "command"?`},
		{`{"task": {"t": {"command": ["a"], "limits": null}}}`, "limits is null"},
		{`{"task": {"t": null}}`, "task is null"},
		{`{"task": {"t": [null]}}`, "incorrect JSON value type"},
		{`{"task": [{"t": null}]}`, "task is null"},
		{`{"task": null}`, "missing block label"},
		{`{"task": {"t": [[]]}}`, "incorrect JSON value type"},
		{`{"task": {"t": [{"command": ["a"]}, {"command": ["a"]}]}}`, "defined twice"},
		{`{"task": {"t": {"command": ["a"], "limits": [{}, {}]}}}`, "given twice"},
		{`{"task": {"t": {"command": ["a"], "environment": {"A": "1", "A": "2"}}}}`, "twice"},
		{`{"task": {"t": {"command": ["a"], "environment": {"A": null}}}}`, "must be a string, not null"},
		{`{"task": {"t": {"command": ["a"], "timeout": {}}}}`, "not an object"},
		{`{"task": {"t": {"command": ["a"], "timeout": 1, "timeout": 2}}}`, "duplicate argument"},
		{`{"task": {"t": {"command": ["a\u0000"]}}}`, "NUL"},
		{`{"task": {"t": {"command": []}}}`, "command is empty"},
		{`{"task": {"t": {}}}`, "no command"},
		{`{"tusk": {}}`, `Did you mean "task"?`},
		{`[]`, "incorrect JSON value type"},
		{`{"task": {}}`, "missing block label"},
		{`{"task": {"t": ` + strings.Repeat("[", 200), "too deeply nested"},
	} {
		_, diags := build([]*source{{name: "t.hcl.json", data: []byte(c.text), json: true}}, Options{})
		if len(diags) != 1 || !diags.HasErrors() {
			t.Errorf("%s: want one error, got:\n%v", c.text, diags)
			continue
		}
		if got := diags[0].Summary + "\n" + diags[0].Detail; !strings.Contains(got, c.want) {
			t.Errorf("%s: want %q in:\n%s", c.text, c.want, got)
		}
	}
}

// TestTaken has values at the edges of what is taken.
func TestTaken(t *testing.T) {
	n := func(v *uint64) string {
		if v == nil {
			return "not set"
		}
		return fmt.Sprint(*v)
	}
	infinity := fmt.Sprint(uint64(spec.Infinity))
	for _, c := range []struct {
		line string
		get  func(*Task) any
		want any
	}{
		{`timeout = "300s"`, func(t *Task) any { return t.Timeout }, 300 * time.Second},
		{`timeout = "5min"`, func(t *Task) any { return t.Timeout }, 5 * time.Minute},
		{`timeout = "1h 30min"`, func(t *Task) any { return t.Timeout }, 90 * time.Minute},
		{`timeout = "1h30min 2 s"`, func(t *Task) any { return t.Timeout }, 90*time.Minute + 2*time.Second},
		{`timeout = "500ms"`, func(t *Task) any { return t.Timeout }, 500 * time.Millisecond},
		{`timeout = "2d"`, func(t *Task) any { return t.Timeout }, 48 * time.Hour},
		{`timeout = "1.5w"`, func(t *Task) any { return t.Timeout }, 252 * time.Hour},
		{`timeout = "1M"`, func(t *Task) any { return t.Timeout }, 2629800 * time.Second},
		{`timeout = "1m"`, func(t *Task) any { return t.Timeout }, time.Minute},
		{`timeout = "7us"`, func(t *Task) any { return t.Timeout }, 7 * time.Microsecond},
		{`timeout = "7µs"`, func(t *Task) any { return t.Timeout }, 7 * time.Microsecond},
		{`timeout = 5`, func(t *Task) any { return t.Timeout }, 5 * time.Second},
		{`timeout = 0.1`, func(t *Task) any { return t.Timeout }, 100 * time.Millisecond},
		{`timeout = "5"`, func(t *Task) any { return t.Timeout }, 5 * time.Second},
		{`timeout = "infinity"`, func(t *Task) any { return t.Timeout }, time.Duration(0)},
		{`timeout_stop_sec = 0`, func(t *Task) any { return t.TimeoutStop }, time.Duration(0)},
		{`kill_signal = "SIGTERM"`, func(t *Task) any { return t.KillSignal }, syscall.SIGTERM},
		{`kill_signal = "HUP"`, func(t *Task) any { return t.KillSignal }, syscall.SIGHUP},
		{`kill_signal = "SIGSYS"`, func(t *Task) any { return t.KillSignal }, syscall.SIGSYS},
		{`kill_signal = 9`, func(t *Task) any { return t.KillSignal }, syscall.SIGKILL},
		{`kill_signal = "9"`, func(t *Task) any { return t.KillSignal }, syscall.SIGKILL},
		{`kill_signal = "SIGRTMIN+30"`, func(t *Task) any { return t.KillSignal }, syscall.Signal(64)},
		{`max_input_bytes = 0`, func(t *Task) any { return t.MaxInputBytes }, int64(0)},
		{`max_input_bytes = "1.5K"`, func(t *Task) any { return t.MaxInputBytes }, int64(1536)},
		{`max_input_bytes = "7B"`, func(t *Task) any { return t.MaxInputBytes }, int64(7)},
		{`log_max_bytes = "1T"`, func(t *Task) any { return t.LogMaxBytes }, int64(1) << 40},
		{`log_max_bytes = 1152921504606846976`, func(t *Task) any { return t.LogMaxBytes }, int64(1) << 60},
		{`user = "root"`, func(t *Task) any { return t.User }, "root"},
		{`user = "DOMAIN\\alice@x"`, func(t *Task) any { return t.User }, `DOMAIN\alice@x`},
		{`workdir = "/a//b/./c/"`, func(t *Task) any { return t.Workdir }, "/a/b/c"},
		{`workdir = "/a..b"`, func(t *Task) any { return t.Workdir }, "/a..b"},
		{`supplementary_groups = []`, func(t *Task) any { return len(t.SupplementaryGroups) }, 0},
		{"limits {\nmemory_max = \"512M\"\n}", func(t *Task) any { return n(t.Limits.MemoryMax) }, "536870912"},
		{"limits {\nmemory_max = \"infinity\"\n}", func(t *Task) any { return n(t.Limits.MemoryMax) }, infinity},
		{"limits {\ntasks_max = \"64\"\n}", func(t *Task) any { return n(t.Limits.TasksMax) }, "64"},
		{"limits {\ntasks_max = 1\n}", func(t *Task) any { return n(t.Limits.TasksMax) }, "1"},
		{"limits {\ntasks_max = \"infinity\"\n}", func(t *Task) any { return n(t.Limits.TasksMax) }, infinity},
		{"limits {\ncpu_quota = \"0.1%\"\n}", func(t *Task) any { return n(t.Limits.CPUQuota) }, "1000"},
		{"limits {\ncpu_quota = \"12.34%\"\n}", func(t *Task) any { return n(t.Limits.CPUQuota) }, "123400"},
		{"limits {\ncpu_quota = \"infinity\"\n}", func(t *Task) any { return n(t.Limits.CPUQuota) }, infinity},
		{"limits {\n}", func(t *Task) any { return t.Limits.IsZero() }, true},
		{"environment = {\nA = \"x\\ny\"\n}", func(t *Task) any { return strings.Join(t.Environment, "|") }, "A=x\ny"},
		{"environment = {\ntrue = \"x\"\n}", func(t *Task) any { return strings.Join(t.Environment, "|") }, "true=x"},
		{"environment = { Z = \"1\", A = \"2\" }", func(t *Task) any { return strings.Join(t.Environment, "|") }, "A=2|Z=1"},
	} {
		task, diags := one("task \"t\" {\ncommand = [\"true\"]\n" + c.line + "\n}\n")
		if len(diags) != 0 {
			t.Errorf("%s:\n%v", c.line, diags)
			continue
		}
		if got := c.get(task); got != c.want {
			t.Errorf("%s: got %v, want %v", c.line, got, c.want)
		}
	}
}

func TestHeredocAsArgument(t *testing.T) {
	task, diags := one("task \"t\" {\n  command = [\"/bin/sh\", \"-c\", <<-EOT\n    echo $HOME $(date) $${HOME}\n    EOT\n  ]\n}\n")
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	if want := "echo $HOME $(date) ${HOME}\n"; task.Command[2] != want {
		t.Errorf("got %q, want %q", task.Command[2], want)
	}
}

func TestValidName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "0": true, "a-b_c9": true, long: true, "cmd": true,
		"": false, long + "a": false, "-a": false, "_a": false, "A": false, "a.b": false, "a b": false, "ä": false, "a\x00": false, "a/b": false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
}

// TestDefaultsAreNotShared has two tasks that add to the same default environment.
func TestDefaultsAreNotShared(t *testing.T) {
	cfg, diags := build([]*source{
		{name: "rtask.hcl", root: true, data: []byte(`defaults { environment = { A = "1" } }`)},
		{name: "t.hcl", data: []byte("task \"x\" {\ncommand=[\"a\"]\nenvironment={B=\"2\"}\nlimits {\ntasks_max=1\n}\n}\ntask \"y\" {\ncommand=[\"a\"]\n}\n")},
	}, Options{})
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	if got := strings.Join(cfg.Tasks["y"].Environment, " "); got != "A=1" {
		t.Errorf("environment of y is %s", got)
	}
	if !cfg.Tasks["y"].Limits.IsZero() {
		t.Error("y has limits of x")
	}
}

func TestNestingIsBounded(t *testing.T) {
	for _, opener := range []string{"[", "(", "{a=", "!", "-", "a ? ", `"${`, "f(", "<<A\n${"} {
		text := "max_jobs = " + strings.Repeat(opener, 2*maxOperators)
		_, diags := build([]*source{{name: "rtask.hcl", root: true, data: []byte(text)}}, Options{})
		if !strings.Contains(diags.Error(), "too deeply nested") {
			t.Errorf("%q is not refused", opener)
		}
	}
}
