package ctl

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/config"
)

// valuesOf is the shell command that lists the values of an option of a command, "" if nothing is known of them.
func valuesOf(path, option string) string {
	switch option {
	case "--context":
		return contextList
	case "--sandbox":
		return "echo " + strings.Join([]string{config.ProfileOff, config.ProfileDefault, config.ProfileStrict}, " ")
	case "--state":
		return "echo " + strings.Join(stateWords(), " ")
	case "--status":
		return "echo success failure"
	case "--reason":
		return "echo " + strings.Join(reasonWords(), " ")
	case "--task":
		return taskNames
	case "--webhook":
		return hookOnly
	case "--key":
		switch path {
		case "login":
			return "echo agent passphrase plain"
		case "audit", "config check":
			return keyNames
		}
	}
	return ""
}

// valueCases yields the shell's case for every option whose values are known, and what lists them: "PATH OPTION", with an empty path for
// those that stand before a command.
func valueCases(flags []cli.Flag, commands []*cli.Command, prefix string, each func(pattern, list string)) {
	for _, w := range words(flags) {
		if name, ok := strings.CutSuffix(w, "="); ok {
			if list := valuesOf(prefix, name); list != "" {
				each(prefix+" "+name, list)
			}
		}
	}
	for _, c := range commands {
		valueCases(c.Flags, c.Subcommands, strings.TrimPrefix(prefix+" "+c.Name, " "), each)
	}
}

// whereOptions are the options that say which engine is meant: what lists values has to ask the same one.
func whereOptions(flags []cli.Flag) (valued, plain []string) {
	for _, w := range words(flags) {
		switch name, takes := strings.CutSuffix(w, "="); {
		case name == "--help", name == "-h", name == "--version", name == "-v":
		case takes:
			valued = append(valued, name)
		default:
			plain = append(plain, name)
		}
	}
	return valued, plain
}

// shellWhere is what bash and zsh put for the options that say which engine is meant.
const shellWhere = `"${where[@]}"`

// asking is a command that lists something, with the options of the command line that say which engine is meant.
func asking(list, where string) string {
	return strings.ReplaceAll(list, "rtaskctl @ ", "rtaskctl "+where+" ")
}

// valuePattern is the shell's pattern for "PATH OPTION"; options of rtaskctl itself may stand behind any command.
func valuePattern(pattern string) string {
	if strings.HasPrefix(pattern, " ") {
		return "*" + shellQuote(pattern)
	}
	return shellQuote(pattern)
}

// fishList is what lists something, as the value of fish's -a. Fish takes a line for a value.
func fishList(list string) string {
	if values, ok := strings.CutPrefix(list, "echo "); ok {
		list = `printf "%s\n" ` + values
	}
	return fishQuote("(" + asking(list, "(__rtaskctl_where)") + ")")
}

// fishWhere is the function of fish that prints the options of the command line that say which engine is meant, a word a line.
func fishWhere(flags []cli.Flag) string {
	takes, alone := whereOptions(flags)
	with := make([]string, len(takes))
	for i, t := range takes {
		with[i] = "'" + t + "=*'"
	}
	return `function __rtaskctl_where
    set -l take
    for w in (commandline -opc)[2..-1]
        if set -q take[1]
            printf "%s\n" $take $w
            set take
            continue
        end
        switch $w
            case ` + strings.Join(takes, " ") + `
                set take $w
            case ` + strings.Join(append(with, alone...), " ") + `
                echo $w
        end
    end
end
`
}
