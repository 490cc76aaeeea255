package foreign

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An argument stays what it is, whatever quotes it stands in, and what cannot be told is an error.
func TestSubstitute(t *testing.T) {
	variables := map[string]string{"x": "X", "y": "Y"}
	for in, want := range map[string]string{
		`echo {{ x }}`:                     `echo ${X}`,
		`echo {{x}}{{.Arguments.y}}z`:      `echo ${X}${Y}z`,
		`echo "a {{ x }}" b`:               `echo "a ${X}" b`,
		`echo 'a {{ x }}' "it's {{ x }}"`:  `echo 'a '"${X}"'' "it's ${X}"`,
		`echo \" {{ x }} "\"{{ x }}"`:      `echo \" ${X} "\"${X}"`,
		`echo '\' {{ x }}`:                 `echo '\' ${X}`,
		`echo {{ x }} $(date)`:             `echo ${X} $(date)`,
		`echo {{ x }} # {{ no }}`:          "!no argument",
		`echo {{ no }}`:                    "!no argument",
		`echo {{ x`:                        "!more than",
		`echo {{ if .x }}`:                 "!more than",
		`echo \{{ x }}`:                    "!backslash",
		`echo $(cat {{ x }})`:              "!only a shell",
		"echo `cat {{ x }}`":               "!only a shell",
		`echo ${A:-{{ x }}}`:               "!only a shell",
		"cat <<E\n{{ x }}\nE":              "!only a shell",
		`echo $'a\'' {{ x }}`:              "!only a shell",
		`# it's {{ x }}`:                   "!only a shell",
		"echo {{ server.name }}":           "!more than",
		"echo {{ .CurrentEntity.Names }}":  "!more than",
		`ssh h "run '{{ x }}'" # and more`: `ssh h "run '${X}'" # and more`,
	} {
		got, err := substitute(in, variables)
		if text, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q, %v; want %q", in, got, err, text)
			}
		} else if err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// A shell takes a value for a value, whatever is in it.
func TestValuesRunNothing(t *testing.T) {
	const hostile = `"'; touch ran; $(touch ran) ` + "`touch ran`" + ` && touch ran`
	for _, shell := range []string{`echo {{ x }}`, `echo "{{ x }}"`, `echo '{{ x }}'`, `echo "it's '{{ x }}'" \"{{ x }}\"`, `A={{ x }}; echo "$A"`} {
		text, err := substitute(shell, map[string]string{"x": "X"})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		c := exec.Command("/bin/sh", "-c", text)
		c.Dir, c.Env = dir, append(os.Environ(), "X="+hostile)
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "touch ran") {
			t.Errorf("%s: %v: %s", text, err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("%s: the value ran", text)
		}
	}
}
