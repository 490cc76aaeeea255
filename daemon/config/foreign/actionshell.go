package foreign

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// command is what an action runs. A value of an argument is a variable that the shell expands, never a part of its text.
func (c *actionTask) command() []string {
	exports, variables := c.exports()
	var text string
	var literals []string
	var err error
	switch {
	case c.shell != "" && len(c.exec) > 0:
		err = fmt.Errorf("the action has shell and exec")
	case c.shell != "":
		for _, in := range c.arguments {
			if unsafe := in.shellSafe(); unsafe != nil && err == nil {
				err = fmt.Errorf("argument %q: %w", in.name, unsafe)
			}
			if strings.ContainsAny(strings.Join(in.choices, ""), "\"'\\$`;&|<>()#~*?[]{}!\n") {
				c.note("  ", in.line, "argument %q: OliveTin has the shell read its choices. Here their characters are as they stand", in.name)
			}
		}
		if err == nil {
			text, err = substitute(c.shell, variables)
		}
	case len(c.exec) > 0:
		if len(exports) == 0 && !strings.Contains(strings.Join(c.exec, " "), "{{") {
			return c.exec
		}
		if strings.HasPrefix(c.exec[0], "-") || strings.HasPrefix(c.exec[0], "{{") {
			err = fmt.Errorf("the program is an argument, or begins with a -")
			break
		}
		text, literals, err = execWords(c.exec, variables)
	default:
		err = fmt.Errorf("the action has neither shell nor exec")
	}
	if err != nil && c.task.err == nil {
		c.task.err = err
	}
	if len(exports) > 0 {
		text = "export " + strings.Join(exports, " ") + "; " + text
	}
	if len(c.exec) == 0 {
		return []string{"/bin/sh", "-c", text}
	}
	return append([]string{"/bin/sh", "-c", text}, literals...)
}

// exports returns the variables that OliveTin sets, as arguments of export, and for each argument the one that has its value.
func (c *actionTask) exports() (exports []string, variables map[string]string) {
	variables = map[string]string{}
	var set []string
	for _, in := range c.arguments {
		if in.name == "" || in.kind == "html" || in.kind == "confirmation" {
			continue
		}
		param := "RTASK_PARAM_" + strings.ToUpper(strings.ReplaceAll(in.name, "-", "_"))
		name := strings.ToUpper(in.name)
		variables[in.name] = param
		switch err := c.mayExport(name); {
		case slices.Contains(set, name):
		case err != nil:
			c.note("  ", in.line, "argument %q: its variable %s: %v", in.name, name, err)
		case identifier(name):
			set = append(set, name)
			exports = append(exports, name+`="$`+param+`"`)
			variables[in.name] = name
		}
	}
	return exports, variables
}

func (c *actionTask) mayExport(name string) error {
	if !identifier(name) { // and none for a shell
		return nil
	}
	if err := assignable(name); err != nil {
		return err
	}
	return c.options.Variable(name)
}

// assignable returns why the text of a shell must not set a variable: bash(1) computes what RANDOM gets, and so runs a $(…) in it,
// BASH_ARGV0 is $0, and UID cannot be set. /bin/sh may be bash.
func assignable(name string) error {
	own := []string{
		"_", "COLUMNS", "COPROC", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "LINENO", "LINES", "MAILCHECK",
		"MAPFILE", "OPTARG", "OPTERR", "OPTIND", "PIPESTATUS", "PPID", "RANDOM", "REPLY", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "TMOUT", "UID",
		"status", // which our own text sets
	}
	if slices.Contains(own, name) || strings.HasPrefix(name, "BASH") || strings.HasPrefix(name, "COMP_") || strings.HasPrefix(name, "HIST") {
		return fmt.Errorf("shells have a variable of this name for themselves")
	}
	return nil
}

// template is where the value of an argument stands, with a dot before Arguments or as OliveTin wrote it before.
func template() *regexp.Regexp {
	return regexp.MustCompile(`^\{\{\s*(?:\.Arguments\.)?([A-Za-z0-9_]+)\s*\}\}`)
}

// substitute replaces the arguments in the text of a shell with variables, as it stands for the quotes around them. It returns an
// error for a place where it cannot tell.
func substitute(shell string, variables map[string]string) (string, error) {
	var b strings.Builder
	quote, unsure := byte(0), false
	for i := 0; i < len(shell); {
		rest := shell[i:]
		switch ch := shell[i]; {
		case strings.HasPrefix(rest, "{{"):
			found := template().FindStringSubmatch(rest)
			if found == nil {
				return "", fmt.Errorf("{{ … }} is more than an argument")
			}
			variable, ok := variables[found[1]]
			switch {
			case !ok:
				return "", fmt.Errorf("there is no argument %q", found[1])
			case unsure:
				return "", fmt.Errorf("argument %q stands behind something that only a shell can read: $(…), ${…}, `…`, << or #", found[1])
			}
			switch quote {
			case '\'':
				b.WriteString(`'"${` + variable + `}"'`)
			default:
				b.WriteString("${" + variable + "}")
			}
			i += len(found[0])
			continue
		case quote == '\'':
			if ch == '\'' {
				quote = 0
			}
		case ch == '\\' && i+1 < len(shell):
			if strings.HasPrefix(rest[1:], "{{") {
				return "", fmt.Errorf("an argument stands behind a backslash")
			}
			b.WriteByte(ch)
			i++
		case ch == '"' && quote == '"':
			quote = 0
		case quote == 0 && (ch == '"' || ch == '\''):
			quote = ch
		case ch == '`', strings.HasPrefix(rest, "$("), strings.HasPrefix(rest, "${"), strings.HasPrefix(rest, "$'"), strings.HasPrefix(rest, `$"`),
			quote == 0 && (strings.HasPrefix(rest, "<<") || ch == '#'):
			unsure = true
		}
		b.WriteByte(shell[i])
		i++
	}
	return b.String(), nil
}

// execWords returns the text of a shell that runs a program, and the parts of its arguments that are the configuration's.
func execWords(words []string, variables map[string]string) (text string, literals []string, err error) {
	var all []string
	for _, word := range words {
		var b strings.Builder
		for word != "" {
			before, after, found := strings.Cut(word, "{{")
			if before != "" || !found && b.Len() == 0 {
				b.WriteString(positional(len(literals)))
				literals = append(literals, before)
			}
			if !found {
				break
			}
			m := template().FindStringSubmatch("{{" + after)
			if m == nil {
				return "", nil, fmt.Errorf("{{ … }} is more than an argument")
			}
			variable, ok := variables[m[1]]
			if !ok {
				return "", nil, fmt.Errorf("there is no argument %q", m[1])
			}
			b.WriteString(`"${` + variable + `}"`)
			word = after[len(m[0])-len("{{"):]
		}
		if b.Len() == 0 {
			b.WriteString(`""`)
		}
		all = append(all, b.String())
	}
	return "exec " + strings.Join(all, " "), literals, nil
}

// positional is how a shell calls the argument behind its text with this number, from 0.
func positional(n int) string {
	if n > 9 {
		return `"${` + strconv.Itoa(n) + `}"`
	}
	return `"$` + strconv.Itoa(n) + `"`
}
