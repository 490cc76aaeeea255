package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"

	"github.com/rtask/rtask/sandbox/wording"
)

// command sets dst, and to something in any case: nil says that there was no command at all.
func (d *decoder) command(v value, dst *[]string) {
	*dst = []string{}
	list, diags := hcl.ExprList(v.expr)
	if diags.HasErrors() {
		got, kind, ok := d.scalar(v)
		if !ok {
			return
		}
		detail := v.usage()
		if kind == "a string" {
			detail = argvHint(got.AsString())
		}
		d.errorf(v.rng(), detail, "command must be a list of strings, not %s", kind)
		return
	}
	if len(list) == 0 {
		d.errorf(v.rng(), v.usage(), "command is empty")
	}
	for i, expr := range list {
		// An argument may be empty, a program not.
		if s, ok := d.string(v.element(fmt.Sprintf("command[%d]", i), expr), i > 0); ok {
			*dst = append(*dst, s)
		}
	}
	if at, what := unread(*dst); at >= 0 && len(*dst) == len(list) {
		d.warnf(list[at].Range(), fmt.Sprintf(`For a shell write: command = ["/bin/sh", "-c", %s]`, wording.HCL(line(*dst))),
			"command: no shell reads %s here, the program gets %q as it is", what, (*dst)[at])
	}
}

// argvHint says how text, which was meant as a command, is written.
func argvHint(text string) string {
	const longest = 60
	words := strings.Fields(text)
	if len(words) == 0 || len(text) > longest {
		return `Write each argument by itself: command = ["/usr/bin/make", "deploy"]`
	}
	if strings.ContainsAny(text, "|&;<>()$`\\\"'*?[]#~=%\n") {
		return fmt.Sprintf(`For a shell write: command = ["/bin/sh", "-c", %s]`, wording.HCL(text))
	}
	for i, w := range words {
		words[i] = wording.HCL(w)
	}
	return fmt.Sprintf("Write each argument by itself: command = [%s]", strings.Join(words, ", "))
}

func (d *decoder) workdir(v value, dst *string) {
	s, ok := d.string(v, false)
	switch {
	case !ok:
		return
	case !path.IsAbs(s):
		d.errorf(v.rng(), `It must begin with a slash: "/srv/project"`, "workdir %q is not absolute", s)
		return
	case strings.Contains(s+"/", "/../"):
		d.errorf(v.rng(), fmt.Sprintf("Write it without: %q", path.Clean(s)), `workdir %q has ".." in it`, s)
		return
	}
	*dst = path.Clean(s)
	if d.opts.StatDir == nil {
		return
	}
	if err := d.opts.StatDir(*dst); errors.Is(err, ErrNoAnswer) {
		d.warnf(v.rng(), "Is it on a mount whose server is gone? Jobs of the task would wait for it.", "workdir %v", err)
	} else if err != nil {
		d.warnf(v.rng(), "The task is refused until it is.", "workdir %q is not a folder on this machine", *dst)
	}
}

// untilItDoes is the hint for an account of a task that does not exist.
const untilItDoes = "The task is refused until it does."

// account sets dst to the user or group that a job runs as.
func (d *decoder) account(v value, dst *string, lookup func(string) error, kind string) {
	if s, ok := d.string(v, false); ok && d.accountName(v, s, lookup, kind, untilItDoes) {
		*dst = s
	}
}

// accountName checks a user or group that a job runs with, and warns with missing as systemName does.
func (d *decoder) accountName(v value, s string, lookup func(string) error, kind, missing string) bool {
	if s == gatewayUser {
		d.errorf(v.rng(), "It faces the network and is for the gateway alone. Choose another one.", "%s must not be %q", v.name, s)
		return false
	}
	return d.systemName(v, s, lookup, kind, missing)
}

// callerName checks a user or group that may start a task.
func (d *decoder) callerName(v value, s string, lookup func(string) error, kind string) bool {
	return d.systemName(v, s, lookup, kind, "")
}

// maxAccountName is the longest name of a user or group, in bytes.
const maxAccountName = 255

// systemName checks the form of the name or number of a user or group, as systemd.exec(5) takes it, and warns with
// missing if lookup does not know it.
func (d *decoder) systemName(v value, s string, lookup func(string) error, kind, missing string) bool {
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 32)
		// 65535 and 4294967295 are (uid_t) -1 of 16 and 32 bits.
		if err != nil || n == 65535 || n == 1<<32-1 {
			d.errorf(v.rng(), "", "%s: %s is no number of a %s", v.name, s, kind)
			return false
		}
		return true
	}
	if len(s) > maxAccountName {
		d.errorf(v.rng(), "", "%s: the name of a %s is longer than %d bytes", v.name, kind, maxAccountName)
		return false
	}
	bad := func(r rune) bool { return r == ':' || r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }
	if strings.ContainsFunc(s, bad) || s[0] == '-' || s == "." || s == ".." {
		d.errorf(v.rng(), "", "%s: %q cannot be the name of a %s", v.name, s, kind)
		return false
	}
	if lookup != nil && lookup(s) != nil {
		d.warnf(v.rng(), missing, "%s %q does not exist on this machine", kind, s)
	}
	return true
}

// keyName checks the name of an API key.
func (d *decoder) keyName(v value, s string) bool {
	if ValidName(s) {
		return true
	}
	d.errorf(v.rng(), fmt.Sprintf("It is the name that the key was added under: 1 to %d of a–z, 0–9, _ and -, and begins with a letter or a digit.",
		maxNameLength), "%s: %q cannot be the name of a key", v.name, s)
	return false
}

// environment adds the variables of v to dst.
func (d *decoder) environment(v value, dst *map[string]string) {
	pairs, diags := hcl.ExprMap(v.expr)
	if diags.HasErrors() {
		if _, kind, ok := d.scalar(v); ok {
			d.wrong(v, "an object", kind)
		}
		return
	}
	if *dst == nil {
		*dst = map[string]string{}
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		name, ok := d.variable(p.Key)
		if !ok {
			continue
		}
		if seen[name] {
			d.errorf(p.Key.Range(), "", "environment has %s twice", name)
			continue
		}
		seen[name] = true
		s, ok := d.string(v.element("environment "+name, p.Value), true)
		if !ok {
			continue
		}
		if len(name)+len("=")+len(s) > maxArgument {
			d.errorf(p.Value.Range(), "", "environment %s is longer than the %d bytes that Linux takes", name, maxArgument)
			continue
		}
		(*dst)[name] = s
	}
}

// variable returns the name of an environment variable.
func (d *decoder) variable(key hcl.Expression) (string, bool) {
	name, ok := d.key(key, "the name of a variable")
	if !ok {
		return "", false
	}
	const form = "A name is made of A–Z, a–z, 0–9 and _, and does not begin with a digit."
	if !validVariable(name) {
		d.errorf(key.Range(), form, "environment: %q is not the name of a variable", name)
		return "", false
	}
	for _, prefix := range ownPrefixes() {
		if strings.HasPrefix(name, prefix) {
			d.errorf(key.Range(), "rtask sets those itself. Choose another name.", "environment: names that begin with %s are reserved", prefix)
			return "", false
		}
	}
	return name, true
}

// validVariable reports whether s can be the name of a variable of the environment.
func validVariable(s string) bool {
	valid := s != "" && (s[0] < '0' || s[0] > '9')
	for _, c := range []byte(s) {
		valid = valid && (c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z')
	}
	return valid
}

// ownPrefixes are how the names of variables begin that rtask sets itself.
func ownPrefixes() []string { return []string{"RTASK_", "REQUEST_HEADER_"} }

func reservedVariable(name string) bool {
	return slices.ContainsFunc(ownPrefixes(), func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// requestHeaders sets dst to names of headers. Credentials are not among them: a job's environment is no place for one.
func (d *decoder) requestHeaders(v value, dst *[]string) {
	variables := map[string]string{}
	d.names(v, dst, func(e value, s string) bool {
		if !d.headerName(e, s) {
			return false
		}
		if lower := strings.ToLower(s); lower == "authorization" || lower == "proxy-authorization" || lower == "cookie" || lower == "x-gitlab-token" {
			d.errorf(e.rng(), "It holds a secret, which a job's environment is no place for.", "%s: %s cannot be passed on", e.name, s)
			return false
		}
		name := HeaderVariable(s)
		if first, twice := variables[name]; twice {
			d.errorf(e.rng(), "", "%s: %s and %s would both be %s", e.name, first, s, name)
			return false
		}
		variables[name] = s
		return true
	})
}

// HeaderVariable is the variable that a job finds a request's header in.
func HeaderVariable(header string) string {
	upper := []byte("REQUEST_HEADER_" + strings.ToUpper(header))
	for i, c := range upper {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			upper[i] = '_'
		}
	}
	return string(upper)
}
