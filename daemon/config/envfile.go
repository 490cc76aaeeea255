package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// ReadEnvironmentFile reads the variables of a file as EnvironmentFile= of systemd.exec(5) does, as NAME=value in its order.
// It must be a regular file that only root and owner can write. An error names the file and the line, and nothing of a value,
// which may be a secret.
func ReadEnvironmentFile(file string, owner int) ([]string, error) {
	data, err := ReadTrusted(file, owner)
	if err == nil {
		data, err = asText(data)
	}
	var pathError *fs.PathError
	switch {
	case errors.As(err, &pathError):
		return nil, fmt.Errorf("cannot read environment_file %s: %w", file, pathError.Err)
	case err != nil:
		return nil, fmt.Errorf("cannot read environment_file %s: %w", file, err)
	}
	env, line, err := parseEnvironment(string(data))
	if err != nil {
		return nil, fmt.Errorf("environment_file %s:%d: %w", file, line, err)
	}
	return env, nil
}

// parseEnvironment returns the variables of text, or the line of what is wrong.
func parseEnvironment(text string) (env []string, line int, err error) {
	if i := min(invalidUTF8([]byte(text)), len(text)); i < len(text) || strings.ContainsRune(text, 0) {
		if nul := strings.IndexByte(text, 0); nul >= 0 {
			i = min(i, nul)
		}
		return nil, strings.Count(text[:i], "\n") + 1, errors.New("it is not UTF-8 text: save the file as UTF-8")
	}
	for line = 1; text != ""; {
		begins := line
		rest := strings.TrimLeft(text, " \t\r")
		if rest == "" || rest[0] == '\n' || rest[0] == '#' || rest[0] == ';' {
			_, text, _ = strings.Cut(rest, "\n")
			line++
			continue
		}
		name, after, ok := strings.Cut(rest, "=")
		name = strings.TrimRight(name, " \t")
		switch {
		case !ok || strings.ContainsRune(name, '\n'):
			return nil, begins, errors.New("it is not NAME=value")
		case !validVariable(name):
			return nil, begins, errors.New("what stands before the = is not the name of a variable")
		case reservedVariable(name):
			return nil, begins, fmt.Errorf("%s cannot be set: names that begin with RTASK_ and REQUEST_HEADER_ are rtask's own", name)
		}
		value, rest, lines, ok := environmentValue(after)
		if !ok {
			return nil, begins, errors.New("a quote is not closed")
		}
		if len(name)+len("=")+len(value) > maxArgument {
			return nil, begins, fmt.Errorf("%s is longer than the %d bytes that Linux takes", name, maxArgument)
		}
		text, line = rest, line+lines
		// Of a name that comes twice the last value holds.
		env = append(slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }), name+"="+value)
	}
	return env, line, nil
}

// environmentValue reads a value from the beginning of text, and returns what follows its line and how many lines it takes up.
// A backslash before the end of a line joins it to the next one; before another character it stands for that, except between
// single quotes. Between double quotes it does so before ", \, ` and $ only.
func environmentValue(text string) (value, rest string, lines int, ok bool) {
	const space = " \t\r"
	var b strings.Builder
	quote, kept := byte(0), 0 // kept: how much of b is not space that may end the line
	plain := false            // a quote is one only where a word begins, or behind another one
	text = strings.TrimLeft(text, space)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			switch next := text[i]; {
			case next == '\n':
				lines++
				continue
			case quote == '"' && !strings.ContainsRune("\"\\`$", rune(next)):
				b.WriteByte('\\')
			}
			b.WriteByte(text[i])
			kept, plain = b.Len(), quote == 0
		case quote != 0 && c == quote:
			quote = 0
			kept = b.Len()
		case quote == 0 && !plain && (c == '"' || c == '\''):
			quote = c
		case c == '\n' && quote == 0:
			return b.String()[:kept], text[i+1:], lines + 1, true
		default:
			if c == '\n' {
				lines++
			}
			b.WriteByte(c)
			plain = quote == 0
			if quote != 0 || !strings.ContainsRune(space, rune(c)) {
				kept = b.Len()
			}
		}
	}
	return b.String()[:kept], "", lines + 1, quote == 0
}

// environmentFile sets dst to the path of a file that need not be there yet.
func (d *decoder) environmentFile(v value, dst *string) {
	s, ok := d.string(v, false)
	switch {
	case !ok:
		return
	case !path.IsAbs(s):
		d.errorf(v.rng(), `It must begin with a slash: "/etc/rtask/deploy.env"`, "environment_file %q is not absolute", s)
		return
	}
	*dst = path.Clean(s)
	if d.opts.CheckEnvironmentFile == nil {
		return
	}
	if err := d.opts.CheckEnvironmentFile(*dst); err != nil {
		d.warnf(v.rng(), "The task is refused until that is mended.", "%v", err)
	}
}
