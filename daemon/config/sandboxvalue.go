package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/sandbox/jail/seccomp"
	"github.com/rtask/rtask/sandbox/spec"
)

// checkFilters reports what is wrong with one of the filters of s.
func (d *decoder) checkFilters(v value, name string, s spec.Sandbox) {
	if d.tabled { // it takes as long as all the rest, and TestProfiles does it
		return
	}
	var wrong *seccomp.Error
	err := seccomp.Check(s)
	var all []error
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		if !errors.As(one, &wrong) || wrong.Switch != name {
			continue
		}
		at := v
		if list, diags := hcl.ExprList(v.expr); !diags.HasErrors() && wrong.Entry >= 0 && wrong.Entry < len(list) {
			at.expr = list[wrong.Entry]
		}
		d.errorf(at.rng(), "", "%s: %s", name, wrong.Text)
	}
}

// truthOrLines sets dst to the lines of a directive that may be true or false, too.
func (d *decoder) truthOrLines(v value, dst *[]string) {
	if _, diags := hcl.ExprList(v.expr); diags.HasErrors() {
		got, kind, ok := d.scalar(v)
		word := ""
		switch {
		case !ok:
			return
		case kind == "true or false":
			word = strconv.FormatBool(got.True())
		case kind == "a string":
			word = truth(got.AsString(), []string{"true", "false"})
		}
		switch word {
		case "true":
			*dst = []string{"yes"}
			return
		case "false":
			*dst = nil
			return
		}
	}
	if _, texts, ok := d.texts(v); ok {
		*dst = texts
	}
}

// truth turns the words that systemd takes for true and false (systemd.syntax(7)) into these, where words has them.
func truth(s string, words []string) string {
	if slices.Contains(words, "true") && !slices.Contains(words, s) {
		switch strings.ToLower(s) {
		case "yes", "on", "1", "y", "t":
			return "true"
		case "no", "off", "0", "n", "f":
			return "false"
		}
	}
	return s
}

func said(v cty.Value, kind string) string {
	if kind == "a string" {
		return strconv.Quote(v.AsString())
	}
	return kind
}

// boolean is bool, and on a command line the words that systemd takes.
func (d *decoder) boolean(v value, dst *bool) {
	if !v.property {
		d.bool(v, dst)
		return
	}
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	switch word := truth(text, []string{"true", "false"}); word {
	case "true", "false":
		*dst = word == "true"
	default:
		d.errorf(v.rng(), v.usage(), "%s must be true or false, not %q", v.name, text)
	}
}

// profile makes s what the profile is that v names.
func (d *decoder) profile(v value, s *spec.Sandbox) {
	name := ""
	d.choice(v, &name, ProfileOff, ProfileDefault, ProfileStrict)
	if name == "" {
		return
	}
	if _, ok := d.tables.profiles[name]; !ok {
		d.tables.profiles[name] = profile(name)
	}
	*s = d.tables.profiles[name] // what it points to is never written
}

// level sets dst to one of words, of which the first is "".
func (d *decoder) level(v value, dst *string, words []string) {
	var word string
	got, kind, ok := d.scalar(v)
	switch {
	case !ok:
		return
	case kind == "true or false" && slices.Contains(words, "true"):
		word = strconv.FormatBool(got.True())
	case kind == "a string":
		word = truth(got.AsString(), words)
	}
	if !slices.Contains(words, word) {
		d.errorf(v.rng(), v.usage(), "%s must be %s, not %s", v.name, strings.Join(words, " or "), said(got, kind))
		return
	}
	if word == words[0] {
		word = ""
	}
	*dst = word
}

// paths sets dst to a list of paths, each of which may be missing with a "-" before it.
func (d *decoder) paths(v value, dst *[]string) {
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	var list []string
	for i, text := range texts {
		for _, one := range d.split(values[i], text) {
			name, optional := strings.CutPrefix(one, "-")
			clean, ok := d.sandboxPath(values[i], name)
			if !ok {
				return
			}
			if optional {
				clean = "-" + clean
			}
			list = append(list, clean)
		}
	}
	*dst = list
}

// texts returns the strings of a list, or one string as a list of one.
func (d *decoder) texts(v value) (values []value, texts []string, ok bool) {
	list, diags := hcl.ExprList(v.expr)
	if diags.HasErrors() {
		_, kind, ok := d.scalar(v)
		switch {
		case !ok:
			return nil, nil, false
		case kind != "a string":
			d.wrong(v, "a list of strings", kind)
			return nil, nil, false
		}
		s, ok := d.string(v, false)
		return []value{v}, []string{s}, ok
	}
	ok = true
	for i, expr := range list {
		s, good := d.string(v.element(fmt.Sprintf("%s[%d]", v.name, i), expr), false)
		ok = ok && good
		e := v
		e.expr = expr
		values, texts = append(values, e), append(texts, s)
	}
	return values, texts, ok
}

// split is the words of one -p, and in a file the text itself: paths may have spaces.
func (d *decoder) split(v value, text string) []string {
	if v.property {
		return strings.Fields(text)
	}
	return []string{text}
}

// sandboxPath checks a path of a switch.
func (d *decoder) sandboxPath(v value, s string) (string, bool) {
	switch {
	case !path.IsAbs(s):
		d.errorf(v.rng(), `It must begin with a slash: "/srv/data"`, "%s: %q is not absolute", v.name, s)
	case strings.Contains(s+"/", "/../"):
		d.errorf(v.rng(), fmt.Sprintf("Write it without: %q", path.Clean(s)), `%s: %q has ".." in it`, v.name, s)
	default:
		return path.Clean(s), true
	}
	return "", false
}

// temporary sets dst to what TemporaryFileSystem= says: PATH[:OPTION,…].
func (d *decoder) temporary(v value, dst *[]spec.TemporaryFileSystem) {
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	var list []spec.TemporaryFileSystem
	for i, text := range texts {
		for _, one := range d.split(values[i], text) {
			name, options, _ := strings.Cut(one, ":")
			clean, ok := d.sandboxPath(values[i], name)
			if !ok {
				return
			}
			if clean == "/" {
				d.errorf(values[i].rng(), "", "%s: nothing could be executed if / were empty", v.name)
				return
			}
			t := spec.TemporaryFileSystem{Path: clean}
			var rest []string
			for _, o := range strings.FieldsFunc(options, func(r rune) bool { return r == ',' }) {
				key, val, hasValue := strings.Cut(o, "=")
				switch {
				case o == "ro":
					t.ReadOnly = true
				case o == "rw":
					t.ReadOnly = false
				case hasValue && val != "" && slices.Contains([]string{"size", "nr_inodes", "mode", "uid", "gid"}, key):
					rest = append(rest, o)
				default:
					d.errorf(values[i].rng(), "There are ro, rw, size=, nr_inodes=, mode=, uid= and gid=.", "%s: unknown option %q", v.name, o)
					return
				}
			}
			t.Options = strings.Join(rest, ",")
			list = append(list, t)
		}
	}
	*dst = list
}

// binds sets what BindPaths= and BindReadOnlyPaths= say: [-]SOURCE[:DESTINATION[:rbind|norbind]]. The other kind stays.
func (d *decoder) binds(v value, dst *[]spec.Bind, readOnly bool) {
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*dst), func(b spec.Bind) bool { return b.ReadOnly == readOnly })
	for i, text := range texts {
		for _, one := range d.split(values[i], text) {
			b := spec.Bind{ReadOnly: readOnly}
			one, b.Optional = strings.CutPrefix(one, "-")
			parts := strings.Split(one, ":")
			if len(parts) > 3 {
				d.errorf(values[i].rng(), v.usage(), "%s: %q has too many colons", v.name, one)
				return
			}
			if len(parts) == 3 && parts[2] != "rbind" && parts[2] != "norbind" {
				d.errorf(values[i].rng(), "There are rbind, the default, and norbind.", "%s: unknown option %q", v.name, parts[2])
				return
			}
			b.Single = len(parts) == 3 && parts[2] == "norbind"
			if b.Source, ok = d.sandboxPath(values[i], parts[0]); !ok {
				return
			}
			b.Destination = b.Source
			if len(parts) > 1 && parts[1] != "" {
				if b.Destination, ok = d.sandboxPath(values[i], parts[1]); !ok {
					return
				}
			}
			if b.Destination == "/" {
				d.errorf(values[i].rng(), v.usage(), "%s: nothing can be bound over /", v.name)
				return
			}
			list = append(list, b)
		}
	}
	*dst = list
}

// credentials sets dst to what LoadCredential= says: NAME[:PATH]. Without a path, and with one that is not absolute, it is a
// file of /etc/credstore.
func (d *decoder) credentials(v value, dst *[]spec.Credential) {
	const store = "/etc/credstore"
	values, texts, ok := d.texts(v)
	if !ok {
		return
	}
	var list []spec.Credential
	for i, text := range texts {
		name, file, _ := strings.Cut(text, ":")
		if file == "" {
			file = name
		}
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			d.errorf(values[i].rng(), v.usage(), "%s: %q cannot be the name of a credential, which is 1 to 255 bytes without a slash", v.name, name)
			return
		}
		if !path.IsAbs(file) {
			file = store + "/" + file
		}
		if file, ok = d.sandboxPath(values[i], file); !ok {
			return
		}
		if slices.ContainsFunc(list, func(c spec.Credential) bool { return c.Name == name }) {
			d.errorf(values[i].rng(), "", "%s names %q a second time", v.name, name)
			return
		}
		list = append(list, spec.Credential{Name: name, Path: file})
	}
	*dst = list
}

// capabilities returns a set of capabilities, each element of a list as a line of CapabilityBoundingSet= has it: names, or
// after "~" those that are taken out of what the lines before say, or of all.
func (d *decoder) capabilities(v value) (uint64, bool) {
	values, texts, ok := d.texts(v)
	if !ok {
		return 0, false
	}
	var set uint64
	for i, text := range texts {
		names, inverted := strings.CutPrefix(text, "~")
		if inverted && i == 0 {
			set = spec.AllCapabilities()
		}
		for _, name := range strings.Fields(names) {
			bit := spec.Capability(name)
			if bit == 0 {
				detail := v.usage()
				if near := nearest(name, spec.CapabilityNames(spec.AllCapabilities())); near != "" {
					detail = fmt.Sprintf("Did you mean %q?", near)
				}
				d.errorf(values[i].rng(), detail, "%s: there is no capability %q", v.name, name)
				return 0, false
			}
			if inverted {
				set &^= bit
			} else {
				set |= bit
			}
		}
	}
	return set, true
}

// umask sets dst to an octal number.
func (d *decoder) umask(v value, dst **uint32) {
	text, ok := d.string(v, false)
	if !ok {
		return
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > 0o777 {
		d.errorf(v.rng(), v.usage(), "%s must be an octal number up to 0777, not %q", v.name, text)
		return
	}
	mask := uint32(n)
	*dst = &mask
}
