package config

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	// operators are words that a shell reads, and no program expects as an argument of its own.
	operators = []string{"&&", "||", "|", ">", ">>", "<", "2>", "2>&1", "&>", ";", "&"}
	// variable finds a variable in a word that has nothing else of a language in it.
	variable = regexp.MustCompile(`^[^\s'"` + "`" + `(){};|]*\$(\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)[^\s'"` + "`" + `(){};|]*$`)
)

// readsItself reports whether a program reads such words itself, or hands them to a shell, on this machine or another one.
func readsItself(program string) bool {
	return slices.Contains([]string{
		"sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "busybox", "ssh", "su", "runuser", "script", "watch", "parallel",
		"awk", "gawk", "mawk", "sed", "perl", "python", "python3", "ruby", "node", "php", "lua", "jq", "yq", "expr", "test", "[", "find", "envsubst", "psql", "mysql",
	}, path.Base(program))
}

// unread returns the place of the first argument that only a shell would read in another way, and what it is; -1: none.
func unread(argv []string) (at int, what string) {
	if slices.ContainsFunc(argv, readsItself) {
		return -1, ""
	}
	for i, arg := range argv {
		switch {
		case i > 0 && slices.Contains(operators, arg):
			return i, "the operator " + arg
		case variable.MatchString(arg):
			return i, "a variable"
		case strings.HasPrefix(arg, "~/"):
			return i, "a home folder"
		}
	}
	return -1, ""
}

// line returns a command line that a shell reads as argv was most likely meant.
func line(argv []string) string {
	words := make([]string, len(argv))
	for i, arg := range argv {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n'\"\\*?[]()#!`") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
