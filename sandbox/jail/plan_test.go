package jail

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rtask/rtask/sandbox/spec"
)

// String shows a place as the tests below write it.
func (p place) String() string {
	text := [...]string{"", "hidden", "bound", "private", "devices", "messages", "own"}[p.content] + " " + p.path
	if p.content == bound {
		text += " from " + p.source
	}
	if p.content == private && !p.readOnly && p.options != "" {
		text += " " + p.options
	}
	for _, one := range []struct {
		on   bool
		word string
	}{{p.readOnly, "ro"}, {p.writable, "rw"}, {p.noExec, "noexec"}, {p.exec, "exec"}} {
		if one.on {
			text += " " + one.word
		}
	}
	return text
}

// TestArrange: what is seen where, in the order in which it is mounted.
func TestArrange(t *testing.T) {
	for name, c := range map[string]struct {
		sandbox spec.Sandbox
		dir     string
		want    []string
	}{
		"nothing": {spec.Sandbox{}, "/srv", nil},
		"a workdir stays writable": {
			spec.Sandbox{ReadOnlyPaths: []string{"/srv"}}, "/srv/a",
			[]string{"own /srv ro", "own /srv/a rw"},
		},
		"unless it is named": {
			spec.Sandbox{ReadOnlyPaths: []string{"/srv/a", "/srv"}}, "/srv/a",
			[]string{"own /srv ro", "own /srv/a ro"},
		},
		"read-only wins over read-write at one place, what is below over what is above": {
			spec.Sandbox{ReadOnlyPaths: []string{"/a", "/a/b/c"}, ReadWritePaths: []string{"/a", "/a/b"}}, "/",
			[]string{"own /a ro", "own /a/b rw", "own /a/b/c ro"},
		},
		"what is hidden stays so": {
			spec.Sandbox{InaccessiblePaths: []string{"/a"}, ReadWritePaths: []string{"/a/b", "/ab"}}, "/a/c",
			[]string{"hidden /a", "own /ab rw"},
		},
		"a home that has the workdir is empty but for that": {
			spec.Sandbox{ProtectHome: "true"}, "/home/alice/x",
			[]string{"private /home ro", "own /home/alice/x rw", "hidden /root", "hidden /run/user"},
		},
		"a home that is the workdir": {
			spec.Sandbox{ProtectHome: "true"}, "/root",
			[]string{"hidden /home", "own /root rw", "hidden /run/user"},
		},
		"an executable folder is no more writable than what it is in": {
			spec.Sandbox{ReadOnlyPaths: []string{"/"}, NoExecPaths: []string{"/"}, ExecPaths: []string{"/usr"}, ReadWritePaths: []string{"/var"}}, "/",
			[]string{"own / ro noexec", "own /usr ro exec", "own /var rw noexec"},
		},
		"a folder in memory, and what is bound into it": {
			spec.Sandbox{
				PrivateTmp: true, TemporaryFileSystem: []spec.TemporaryFileSystem{{Path: "/srv", ReadOnly: true}},
				Binds: []spec.Bind{{Source: "/x", Destination: "/srv/x"}, {Source: "/y", Destination: "/tmp/y", ReadOnly: true}},
			}, "/tmp/work",
			[]string{"private /srv ro", "bound /srv/x from /x", "private /tmp mode=1777", "own /tmp/work rw", "bound /tmp/y from /y ro", "private /var/tmp mode=1777"},
		},
		"what is not there needs no hiding": {
			spec.Sandbox{HideRun: true, PrivateNetwork: true, ProtectHome: "true", InaccessiblePaths: []string{"/run/x"}}, "/",
			[]string{"hidden /home", "hidden /root", "private /run ro"},
		},
		"the engine's files are hidden, but for what the task uses": {
			spec.Sandbox{Hidden: []string{"/etc/rtask/rtask.hcl", "/etc/rtask/tasks.d", "/etc/rtask", "/var/lib/rtask"}}, "/etc/rtask/scripts",
			[]string{"private /etc/rtask ro", "own /etc/rtask/scripts rw", "hidden /var/lib/rtask"},
		},
		"a workdir that is the folder of tasks": {
			spec.Sandbox{Hidden: []string{"/etc/rtask/rtask.hcl", "/etc/rtask/tasks.d", "/etc/rtask"}}, "/etc/rtask/tasks.d",
			[]string{"private /etc/rtask ro", "own /etc/rtask/tasks.d rw"},
		},
		"something else bound over a hidden folder": {
			spec.Sandbox{Hidden: []string{"/etc/rtask"}, Binds: []spec.Bind{{Source: "/srv/x", Destination: "/etc/rtask", ReadOnly: true}}}, "/",
			[]string{"bound /etc/rtask from /srv/x ro"},
		},
		"users' sockets": {
			spec.Sandbox{HideUsers: true, ReadWritePaths: []string{"/run/user/7"}}, "/",
			[]string{"private /run/screen ro", "private /run/user ro", "own /run/user/7 rw"},
		},
		"users' sockets and homes": {
			spec.Sandbox{HideUsers: true, ProtectHome: "read-only"}, "/",
			[]string{"own /home ro", "own /root ro", "private /run/screen ro", "private /run/user ro"},
		},
		"options of a folder in memory add up": {
			spec.Sandbox{PrivateTmp: true, TemporaryFileSystem: []spec.TemporaryFileSystem{{Path: "/tmp", Options: "size=1G"}}}, "/",
			[]string{"private /tmp mode=1777,size=1G", "private /var/tmp mode=1777"},
		},
		"strict is read-only but for what has switches of its own": {
			spec.Sandbox{ProtectSystem: "strict"}, "/opt/x",
			[]string{"own / ro", "own /dev rw", "own /home rw", "own /opt/x rw", "own /proc rw", "own /root rw", "own /run/user rw", "own /sys rw"},
		},
		"strict with homes": {
			spec.Sandbox{ProtectSystem: "strict", ProtectHome: "read-only"}, "/",
			[]string{"own / ro", "own /dev rw", "own /home ro", "own /proc rw", "own /root ro", "own /run/user ro", "own /sys rw"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range arrange(wanted(c.sandbox, c.dir)) {
				if p.path != spec.DefaultRuntimeDirectory { // which none sees
					got = append(got, p.String())
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestRuntimeDirectory: no room shows the engine's sockets, nor those of root's engine.
func TestRuntimeDirectory(t *testing.T) {
	for _, own := range []string{"", "/run/user/1000/rtask"} {
		var hidden []string
		for _, p := range arrange(wanted(spec.Sandbox{PrivateTmp: true, RuntimeDirectory: own}, "/")) {
			if p.content == private && p.readOnly {
				hidden = append(hidden, p.path)
			}
		}
		want := []string{spec.DefaultRuntimeDirectory}
		if own != "" {
			want = append(want, own)
		}
		if !slices.Equal(hidden, want) {
			t.Errorf("%q: %q are hidden, want %q", own, hidden, want)
		}
	}
}
