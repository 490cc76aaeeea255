//go:build testbed

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"text/tabwriter"
)

// escape is something a job tries that leads out of its sandbox, or to what the kernel has most of its holes in. The script ends
// with 0 if it worked.
type escape struct {
	name, user, script string
	// works are the profiles that let it be, beside off.
	works string
	// off says that off may refuse it as well, on a machine that does.
	off bool
}

func escapes() []escape {
	all := []escape{
		{name: "memory map of the supervisor", user: "root", script: "grep -q . /proc/$PPID/maps"},
		{name: "the program of process 1", user: "root", script: "readlink /proc/1/exe"},
		{name: "/proc/PID/root of others", user: "root", script: `ls "/proc/$(cat /etc/probe-pid)/root/etc"`},
		{name: "/proc/PID/cwd of others", user: "root", script: `ls "/proc/$(cat /etc/probe-pid)/cwd/"`},
		{name: "a signal to others", user: "root", script: `kill -0 "$(cat /etc/probe-pid)"`},
		{name: "rtask's socket", user: "root", script: "test -e /run/rtask/rtask.sock"},
		{name: "systemd's private socket", user: "root", script: "test -S /run/systemd/private"},
		{name: "the system's bus", script: "test -S /run/dbus/system_bus_socket", works: "default"},
		{name: "a set-user-ID program", script: `test "$(/srv/probe/suid-id -u)" = 0`},
		{name: "a file of a control group", user: "root", script: `echo "$$" >"/sys/fs/cgroup$(sed -n "s/^0:://p" /proc/self/cgroup)/cgroup.procs"`},
		{name: "a FIFO of the machine's", script: ": <>/srv/probe/fifo", works: "default"}, // which Landlock alone refuses
		{name: "a device outside of /dev", user: "root", script: ": </srv/probe/fuse", works: "default"},
		{name: "mount", user: "root", script: "mount -t tmpfs escape /mnt", works: "default"},
		{name: "the session keyring", script: "/srv/probe/call keyctl", works: "default", off: true},
		{name: "userfaultfd", script: "/srv/probe/call userfaultfd"},
		{name: "io_uring", script: "/srv/probe/call io_uring", off: true},
		{name: "bpf", user: "root", script: "/srv/probe/call bpf", off: true},
		{name: "perf_event_open", script: "/srv/probe/call perf", off: true},
		{name: "AF_VSOCK", script: "/srv/probe/call vsock", off: true},
		{name: "AF_ALG", script: "/srv/probe/call alg", off: true},
		{name: "AF_PACKET", user: "root", script: "/srv/probe/call packet"},
		{name: "AF_NETLINK", script: "/srv/probe/call netlink", works: "default"},
		{name: "TIOCSTI", script: "/srv/probe/call tiocsti"},
		{name: "an x32 system call", script: "/srv/probe/call x32", off: true},
		{name: "the network", script: "curl -s -o /dev/null http://127.0.0.1:8800/healthz", works: "default"},
		{name: "homes", user: "root", script: "ls /home/alice", works: "default"},
		{name: "a setuid file", user: "root", script: "cp /bin/true /srv/probe/work/suid && chmod u+s /srv/probe/work/suid", works: "default"},
	}
	for _, kind := range []string{"user", "mount", "pid", "net", "ipc", "uts", "cgroup", "time"} {
		all = append(all, escape{name: "a namespace: " + kind, script: "unshare --user --map-root-user --" + kind + " true"})
	}
	return all
}

// TestEscapes tries to get out under each profile.
func TestEscapes(t *testing.T) {
	installProbes(t)
	var tasks strings.Builder
	all := escapes()
	profiles := []string{"off", "default", "strict"}
	for i, e := range all {
		for _, profile := range profiles {
			user := e.user
			if user == "" {
				user = "bob"
			}
			fmt.Fprintf(&tasks, "task \"escape-%d-%s\" {\n  command = [\"/bin/sh\", \"-c\", %q]\n  user = %q\n  workdir = \"/srv/probe/work\"\n  sandbox {\n    profile = %q\n  }\n}\n",
				i, profile, e.script, user, profile)
		}
	}
	configure(t, "escapes", tasks.String())
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "attempt\tuser\toff\tdefault\tstrict")
	for i, e := range all {
		var got []string
		for _, profile := range profiles {
			answer := probeRun(t, "rtaskctl", "run", fmt.Sprintf("escape-%d-%s", i, profile))
			got = append(got, answer)
			want := "cannot"
			if profile == "off" || strings.Contains(e.works, profile) {
				want = "can"
			}
			if answer != want && (!e.off || want == "cannot") {
				t.Errorf("%s under %s: it %s, and it should be that it %s", e.name, profile, answer, want)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.name, e.user, strings.Join(got, "\t"))
	}
	_ = w.Flush() // it goes to memory
	t.Logf("\n%s", table.String())
}

// ordinary are commands that work under default. The testbed is shown the Go of the machine that it runs on.
func ordinary() map[string]string {
	return map[string]string{
		"git": `rm -rf repo clone; git init -q repo && cd repo && git config user.email a@b && git config user.name a && echo x >f && git add f &&
			git commit -qm one && cd .. && git clone -q repo clone && test "$(cat clone/f)" = x`,
		"make": `printf 'all: out\nout:\n\techo built >out\n' >Makefile; rm -f out; make -s -j2 && test "$(cat out)" = built`,
		"gcc": `mkdir -p c && cd c && printf '#include <stdio.h>\nint main(void) { return puts("built") < 0; }\n' >main.c &&
			printf 'prog: main.o\n\tcc -o $@ main.o\n' >Makefile && rm -f main.o prog && make -s && test "$(./prog)" = built`,
		"go": `mkdir -p g/part && cd g && printf 'module example.org/g\n\ngo 1.24\n' >go.mod && printf 'package part\n\nconst Text = "built"\n' >part/part.go &&
			printf 'package main\n\nimport (\n\t"os"\n\n\t"example.org/g/part"\n)\n\nfunc main() { os.Stdout.WriteString(part.Text) }\n' >main.go &&
			export GOCACHE=$PWD/cache GOPATH=$PWD/path GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0 && /usr/local/go/bin/go build -o prog . && test "$(./prog)" = built`,
		"venv": `rm -rf env probe-1-py3-none-any.whl && python3 -m venv env && python3 -c 'import zipfile
with zipfile.ZipFile("probe-1-py3-none-any.whl", "w") as z:
    z.writestr("probe.py", "text = \"built\"")
    z.writestr("probe-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    z.writestr("probe-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("probe-1.dist-info/RECORD", "")' &&
			env/bin/pip install -q --no-index ./probe-1-py3-none-any.whl && test "$(env/bin/python -c 'import probe; print(probe.text)')" = built`,
		"npm": `rm -rf n && mkdir -p n/words/bin n/app && cd n &&
			echo '{"name": "words", "version": "1.0.0", "main": "words.js", "bin": {"say": "bin/say.js"}, "scripts": {"install": "node make.js"}}' >words/package.json &&
			echo 'require("fs").writeFileSync("words.js", "module.exports = \"built\"")' >words/make.js &&
			printf '#!/usr/bin/env node\nconsole.log(require("words"))\n' >words/bin/say.js &&
			echo '{"name": "app", "version": "1.0.0", "dependencies": {"words": "file:../words"}, "scripts": {"start": "say"}}' >app/package.json &&
			cd app && npm install --offline && test ! -e ../words/words.js && test -L node_modules/.bin/say &&
			test "$(node -p 'require("words")')" = built && test "$(npm --silent start)" = built`,
		"rsync":                            `mkdir -p from/a && echo x >from/a/f && rsync -a --delete from/ to/ && test "$(cat to/a/f)" = x`,
		"tar":                              `mkdir -p t/a && echo x >t/a/f && tar czf t.tar.gz t && rm -r t && tar xzf t.tar.gz && test "$(cat t/a/f)" = x`,
		"here-document":                    `test "$(cat <<END` + "\n" + `x` + "\n" + `END` + "\n" + `)" = x`,
		"pipeline":                         `seq 1000 | sort -rn | head -n 1 | grep -qx 1000`,
		"python":                           `python3 -c 'import os, socket, subprocess; socket.socketpair(); assert subprocess.run(["true"]).returncode == 0; os.nice(1)'`,
		"curl":                             `test "$(curl -s -o /dev/null -w "%{http_code}" http://127.0.0.1:8800/healthz)" = 200`,
		"temporary":                        `f=$(mktemp) && echo x >"$f" && d=$(mktemp -d) && mv "$f" "$d"`,
		"strace":                           `strace -f -o /dev/null true`,
		"background":                       `sleep 0.1 & wait`,
		"background as a group of its own": `setsid true`,
	}
}

// maintenance are those of root.
func maintenance() map[string]string {
	return map[string]string{
		"systemctl": `before=$(systemctl show -p MainPID systemd-logind) && systemctl restart systemd-logind && test "$before" != "$(systemctl show -p MainPID systemd-logind)"`,
		"apt-get": `mkdir -p p/DEBIAN p/usr/bin && printf 'Package: probe-package\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n' >p/DEBIAN/control &&
			printf '#!/bin/sh\nset -e\nchown root:mail /usr/bin/probe-package\nchmod 2755 /usr/bin/probe-package\nsystemctl daemon-reload\n' >p/DEBIAN/postinst && chmod 755 p/DEBIAN/postinst &&
			echo x >p/usr/bin/probe-package && dpkg-deb -b p probe.deb && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq ./probe.deb && test -g /usr/bin/probe-package`,
		"files":   `install -o alice -m 0640 /dev/null /etc/probe-file && touch /usr/local/bin/probe-file && rm /usr/local/bin/probe-file /etc/probe-file`,
		"mount":   `mount -t tmpfs x /mnt && umount /mnt`,
		"runuser": `test "$(runuser -u alice -- id -un)" = alice`,
	}
}

// sandboxed ends a job of another user than root unless its sandbox is on: it may not write to /usr, and has no new privileges and
// does not see rtask's socket, both of which differ from off.
const sandboxed = `if touch /usr/probe 2>/dev/null || [ -e /run/rtask/rtask.sock ] || ! grep -q 'NoNewPrivs:.1' /proc/self/status; then
	echo "the sandbox is off"
	exit 1
fi
`

// TestOrdinary: default keeps no ordinary command from its work.
func TestOrdinary(t *testing.T) {
	installProbes(t)
	var tasks strings.Builder
	names := map[string]string{}
	for user, all := range map[string]map[string]string{"bob": ordinary(), "root": maintenance()} {
		for name, script := range all {
			if user != "root" {
				script = sandboxed + script
			}
			task := "ordinary-" + strings.ReplaceAll(name, " ", "-")
			names[task] = name
			fmt.Fprintf(&tasks, "task %q {\n  command = [\"/bin/bash\", \"-c\", %q]\n  user = %q\n  workdir = \"/srv/probe/work\"\n  timeout = \"5min\"\n}\n",
				task, "umask 022\n"+strings.ReplaceAll(script, "%{", "%%{"), user)
		}
	}
	for _, name := range []string{"git", "tar", "here-document", "pipeline", "temporary", "background"} {
		task := "strict-" + name
		names[task] = name + " under strict"
		fmt.Fprintf(&tasks, "task %q {\n  command = [\"/bin/bash\", \"-c\", %q]\n  user = \"bob\"\n  workdir = \"/srv/probe/work\"\n  sandbox {\n    profile = \"strict\"\n  }\n}\n",
			task, ordinary()[name])
	}
	configure(t, "ordinary", tasks.String())
	for task, name := range names {
		if out, err := exec.CommandContext(t.Context(), "rtaskctl", "run", task).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// TestStrictSeesNew: in the next job of a slot, what the machine got meanwhile is there as it is on the machine.
func TestStrictSeesNew(t *testing.T) {
	installProbes(t)
	configure(t, "new", `task "new" {
  command = ["/bin/sh", "-c", "cat /new-file /usr/new-file /new-folder/file /srv/probe/new-file"]
  user    = "bob"
  workdir = "/srv/probe/work"
  sandbox {
    profile = "strict"
  }
}
`)
	if out, err := exec.CommandContext(t.Context(), "rtaskctl", "run", "new").CombinedOutput(); err == nil {
		t.Fatalf("there is something already: %s", out)
	}
	sh(t, "mkdir /new-folder; for f in /new-file /usr/new-file /new-folder/file /srv/probe/new-file; do echo $f >$f; done")
	want := "/new-file\n/usr/new-file\n/new-folder/file\n/srv/probe/new-file\n"
	if out, err := exec.CommandContext(t.Context(), "rtaskctl", "run", "new").Output(); err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
	// Also of what is mounted over a folder that was there.
	sh(t, "mount -t tmpfs tmpfs /new-folder && echo mounted >/new-folder/file")
	t.Cleanup(func() { sh(t, "umount /new-folder") })
	want = strings.Replace(want, "/new-folder/file", "mounted", 1)
	if out, err := exec.CommandContext(t.Context(), "rtaskctl", "run", "new").Output(); err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// TestThousand: the thousandth job in a slot (the 200th, unless RTASK_SOAK is set) is confined as the first.
func TestThousand(t *testing.T) {
	installProbes(t)
	configure(t, "thousand", `task "thousand" {
  command  = ["/bin/sh", "-c", "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Groups)' /proc/self/status; readlink /proc/self/ns/*; cat /proc/self/mountinfo; ls /proc/self/fd; umask; sed 's/job-.*//' /proc/self/cgroup"]
  blocking = true
  api_keys = ["thousand"]
}
`)
	key, err := exec.CommandContext(t.Context(), "rtaskctl", "key", "add", "thousand").Output()
	if err != nil {
		t.Fatal(err)
	}
	first := ""
	for i := range count(1000) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:8800/tasks/thousand", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(reply.Body)
		_ = reply.Body.Close() // all of it was read
		if err != nil || reply.StatusCode != http.StatusOK {
			t.Fatalf("%v, %s: %s", err, reply.Status, body)
		}
		text, _, _ := strings.Cut(string(body), `"task_id"`)
		switch {
		case first == "":
			first = text
		case text != first:
			t.Fatalf("job %d:\n%s\nthe first:\n%s", i+1, text, first)
		}
	}
}

// installProbes installs the package and makes what probes look for.
func installProbes(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/srv/probe"); err == nil {
		return
	}
	sh(t, "apt-get install -y -qq $(ls -t "+source+"/dist/rtask_*_amd64.deb | head -n 1) && systemctl start rtask.socket")
	sh(t, probeSetup)
}

// configure puts tasks in force.
func configure(t *testing.T, name, tasks string) {
	t.Helper()
	file := "/etc/rtask/tasks.d/" + name + ".hcl"
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(tasks, "${", "$${")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file) })
	sh(t, "rtaskctl reload")
}
