package foreign

import (
	"fmt"
	"strconv"
	"strings"
)

// shell is the command of a hook: a shell that hands on to its program what stands in variables, and no input, of which webhook
// gives none. Nothing that a stranger wrote is ever part of the shell's text: that has names of variables and the places of
// arguments alone.
func (c *hookTask) shell(program string) []string {
	s := &script{free: c.freePrefix()}
	environment := c.passEnvironment(s)
	files := c.passFiles(s)
	arguments := c.passArguments(s)
	if s.raw {
		// The body is the standard input. The point keeps line ends at its end.
		s.before = append([]string{s.free + "BODY=$(cat; printf .)", s.free + "BODY=${" + s.free + "BODY%.}"}, s.before...)
	}
	run := strings.Join(append([]string{positional(0)}, arguments...), " ") + " </dev/null"
	if len(files) > 0 {
		run += "; status=$?; rm -f " + strings.Join(files, " ") + "; exit $status"
	} else {
		run = "exec " + run
	}
	c.values = append(environment, s.values...)
	return append([]string{"/bin/sh", "-c", strings.Join(append(s.before, run), "; "), program}, s.literals...)
}

// script is the text of a shell while it is made.
type script struct {
	// free is how variables begin that no hook names.
	free string
	// before are commands that come before the program.
	before []string
	// values are further variables of the webhook.
	values []variable
	// literals are arguments of the configuration.
	literals []string
	// raw says that the body is needed as it came.
	raw bool
}

// word is how the shell writes a value, which gets the number n in its group if it has to have a variable.
func (s *script) word(v value, group string, n int) string {
	switch {
	case v.literal != nil:
		s.literals = append(s.literals, *v.literal)
		return positional(len(s.literals))
	case v.raw:
		s.raw = true
		return `"$` + s.free + `BODY"`
	default:
		name := s.free + group + strconv.Itoa(n)
		s.values = append(s.values, variable{name, v.written()})
		return `"$` + name + `"`
	}
}

// freePrefix is how variables begin that the hook does not name.
func (c *hookTask) freePrefix() string {
	prefix := "HOOK_"
	taken := func() bool {
		for _, a := range append(c.hook.environment[:len(c.hook.environment):len(c.hook.environment)], c.files...) {
			for _, ours := range []string{"ARG_", "FILE_", "BODY"} {
				if strings.HasPrefix(variableName(a, a.name), prefix+ours) || strings.HasPrefix(variableName(a, strings.ToUpper(a.name)), prefix+ours) {
					return true
				}
			}
		}
		return false
	}
	for taken() {
		prefix += "X_"
	}
	return prefix
}

// variableName is the variable for an argument that may not say its name.
func variableName(a argument, otherwise string) string {
	if a.envn != "" {
		return a.envn
	}
	return "HOOK_" + otherwise
}

// handed is a value that the command gets. Of an address, that is without its port.
func (c *hookTask) handed(a argument) (value, error) {
	if a.source == "request" && strings.EqualFold(a.name, "remote-addr") {
		c.note("  ", a.line, "remote-addr is an address and a port in webhook, and the address alone in rtask")
		return value{expr: "remote_addr", text: true}, nil
	}
	return c.hook.value(a)
}

// passArguments returns the words of the arguments.
func (c *hookTask) passArguments(s *script) []string {
	var words []string
	for i, a := range c.hook.arguments {
		v, err := c.handed(a)
		if err != nil {
			c.note("  ", a.line, "argument %d, which is empty here: %v", i+1, err)
			v = value{literal: new(string)}
		}
		words = append(words, s.word(v, "ARG_", i+1))
	}
	return words
}

// variable returns the name that a variable gets, or "" if it cannot be carried over.
func (c *hookTask) variable(a argument, name, what string) string {
	renamed := strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, name)
	if !identifier(renamed) {
		renamed = "_" + renamed
	}
	if renamed != name {
		c.note("  ", a.line, "%s: the name %q cannot be one of a variable in rtask, which calls it %s", what, name, renamed)
	}
	if err := c.options.Variable(renamed); err != nil {
		c.note("  ", a.line, "%s: %v", what, err)
		return ""
	}
	return renamed
}

// passEnvironment returns the variables that the webhook sets, and has the shell set those that it has to.
func (c *hookTask) passEnvironment(s *script) []variable {
	const what = "pass-environment-to-command"
	var all []variable
	at := map[string]int{}
	for _, a := range c.hook.environment {
		v, err := c.handed(a)
		if err != nil {
			c.note("  ", a.line, "%s: %v", what, err)
			continue
		}
		name := c.variable(a, variableName(a, a.name), what)
		if name == "" {
			continue
		}
		if v.raw {
			if err := assignable(name); err != nil {
				c.note("  ", a.line, "%s: %s: %v", what, name, err)
				continue
			}
			s.raw = true
			s.before = append(s.before, "export "+name+`="$`+s.free+`BODY"`)
			continue
		}
		set := variable{name, v.expr}
		if v.literal != nil {
			set.expr = c.quote(*v.literal)
		} else {
			set.expr = v.written()
		}
		if i, twice := at[name]; twice { // the last one holds
			all[i] = set
			continue
		}
		at[name] = len(all)
		all = append(all, set)
	}
	return all
}

// passFiles has the shell write files, and returns the words with their names.
func (c *hookTask) passFiles(s *script) []string {
	const what = "pass-file-to-command"
	var words []string
	for i, a := range c.files {
		v, err := c.handed(a)
		if err != nil {
			c.note("  ", a.line, "%s: %v", what, err)
			continue
		}
		name := c.variable(a, variableName(a, strings.ToUpper(a.name)), what)
		if name == "" {
			continue
		}
		if err := assignable(name); err != nil {
			c.note("  ", a.line, "%s: %s: %v", what, name, err)
			continue
		}
		write := fmt.Sprintf(`printf %%s %s`, s.word(v, "FILE_", i+1))
		if a.base64 {
			write += " | base64 -d"
		}
		word := `"$` + name + `"`
		s.before = append(s.before, name+"=$(mktemp)", "export "+name, write+" >"+word)
		words = append(words, word)
	}
	return words
}
