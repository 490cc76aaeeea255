package config

import (
	"strings"
	"testing"
)

func TestUnread(t *testing.T) {
	for command, want := range map[string]string{
		`["make", "&&", "make", "install"]`:            `For a shell write: command = ["/bin/sh", "-c", "make && make install"]`,
		`["echo", "a b", ">", "/tmp/x"]`:               `["/bin/sh", "-c", "echo 'a b' > /tmp/x"]`,
		`["ls", "|", "wc"]`:                            `no shell reads the operator | here, the program gets "|" as it is`,
		`["echo", "$HOME"]`:                            `no shell reads a variable here, the program gets "$HOME" as it is`,
		`["rsync", "-a", "$${SRC}/", "host:x"]`:        `["/bin/sh", "-c", "rsync -a $${SRC}/ host:x"]`,
		`["cp", "~/a", "/srv"]`:                        `no shell reads a home folder here`,
		`["/opt/$APP/bin/run"]`:                        `no shell reads a variable here`,
		`["/bin/sh", "-c", "a && b > $HOME/x"]`:        "",
		`["/usr/bin/env", "bash", "-c", "echo $HOME"]`: "",
		`["ssh", "host", "echo", "$HOME"]`:             "",
		`["docker", "run", "x", "sh", "-c", "$A"]`:     "",
		`["awk", "{ print $NF }"]`:                     "",
		`["grep", "cost: $5", "x"]`:                    "",
		`["mail", "-s", "a & b", "root"]`:              "",
		`["deploy", "--price", "5$", "$"]`:             "",
		`["deploy", "{\"a\": \"$x\"}"]`:                "",
	} {
		_, diags := build([]*source{{name: "t.hcl", data: []byte("task \"t\" {\n  command = " + command + "\n}\n")}}, Options{})
		got := diags.Error()
		if diags.HasErrors() || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
}
