package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/config"
)

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print the completion of a shell", UsageText: "rtaskctl completion bash|zsh|fish",
		Action: func(c *cli.Context) error {
			shell, err := oneArg(c, "bash, zsh or fish")
			if err != nil {
				return err
			}
			switch shell {
			case "bash":
				return a.print(bashCompletion(c.App))
			case "zsh":
				return a.print(zshCompletion(c.App))
			case "fish":
				return a.print(fishCompletion(c.App))
			}
			return misuse(c, "no completion for %q: there is one for bash, zsh and fish", shell)
		},
	}
}

// The shell commands that list what an argument may be. @ is the options of the command line that say which engine is meant.
const (
	allJobs     = "rtaskctl @ ps -a 2>/dev/null | awk 'NR > 1 { print $1 }'"
	runningJobs = "rtaskctl @ ps 2>/dev/null | awk 'NR > 1 { print $1 }'"
	taskNames   = "rtaskctl @ tasks 2>/dev/null | awk 'NR > 1 { print $1 }'"
	keyNames    = "rtaskctl @ key list 2>/dev/null | awk 'NR > 1 { print $1 }'"
	hookNames   = "rtaskctl @ webhook list 2>/dev/null | awk 'NR > 1 { print $1 \"/\" $2 }'"
	hookOnly    = "rtaskctl @ webhook list 2>/dev/null | awk 'NR > 1 { print $2 }' | sort -u"
	senderNames = "rtaskctl webhook senders 2>/dev/null | awk 'NR > 1 { print $1 }'"
	deliveryIDs = "rtaskctl webhook deliveries 2>/dev/null | awk 'NR > 1 { print $1 }'"
	contextList = "rtaskctl context list 2>/dev/null | awk '{ print $1 == \"*\" ? $2 : $1 }'"
	certNames   = "rtaskctl @ ca list 2>/dev/null | awk 'NR > 1 { sub(/.*\\//, \"\", $2); print $2 }' | sort -u"
	deviceCodes = "rtaskctl @ device list 2>/dev/null | awk 'NR > 1 { print $1 }'"
	shellNames  = "echo bash zsh fish"
)

// argumentsOf is the shell command that lists the arguments of a command, "" if nothing is known of them.
func argumentsOf(path string) string {
	switch path {
	case "status", "logs":
		return taskNames + "; " + allJobs
	case "stop":
		return taskNames + "; " + runningJobs
	case "wait":
		return runningJobs
	case "start", "run", "tasks show", "tasks enable", "tasks disable":
		return taskNames
	case "key revoke", "key rotate":
		return keyNames
	case "ca revoke", "ca renew":
		return certNames
	case "device approve", "device deny":
		return deviceCodes
	case "webhook test", "webhook deliveries":
		return hookNames
	case "webhook senders":
		return senderNames
	case "webhook replay":
		return deliveryIDs
	case "login", "logout", "context rename", "context remove":
		return contextList
	case "context use":
		return contextList + "; echo local"
	case "completion":
		return shellNames
	}
	return ""
}

// words are the flags of a command as they are typed, those with a value marked by a = at the end.
func words(flags []cli.Flag) (all []string) {
	for _, f := range flags {
		takes := ""
		if d, ok := f.(cli.DocGenerationFlag); ok && d.TakesValue() {
			takes = "="
		}
		for _, name := range f.Names() {
			all = append(all, dashed(name)+takes)
		}
	}
	return all
}

// plainWords are the flags without the mark.
func plainWords(flags []cli.Flag) string {
	all := words(flags)
	for i := range all {
		all[i] = strings.TrimSuffix(all[i], "=")
	}
	return strings.Join(all, " ")
}

// valued are the flags that take the next word, as a pattern of the shell's case.
func valued(commands []*cli.Command, flags []cli.Flag) []string {
	var all []string
	for _, w := range words(flags) {
		if name, ok := strings.CutSuffix(w, "="); ok {
			all = append(all, name)
		}
	}
	for _, c := range commands {
		for _, w := range valued(c.Subcommands, c.Flags) {
			if !strings.Contains(" "+strings.Join(all, " ")+" ", " "+w+" ") {
				all = append(all, w)
			}
		}
	}
	return all
}

func namesOf(commands []*cli.Command) string {
	var all []string
	for _, c := range commands {
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

// nested are the subcommands with their command, as patterns of the shell's case.
func nested(commands []*cli.Command) string {
	var all []string
	for _, c := range commands {
		for _, s := range c.Subcommands {
			all = append(all, fmt.Sprintf("%q", c.Name+" "+s.Name))
		}
	}
	return strings.Join(all, "|")
}

// cases yields the shell's case for every command: its flags, and what lists its arguments.
func cases(commands []*cli.Command, prefix string, each func(path, flags, list string)) {
	for _, c := range commands {
		path := strings.TrimPrefix(prefix+" "+c.Name, " ")
		list := argumentsOf(path)
		if len(c.Subcommands) > 0 {
			list = "echo " + namesOf(c.Subcommands)
		}
		each(path, plainWords(c.Flags)+" --help", list)
		cases(c.Subcommands, path, each)
	}
}

func bashCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString(`# bash completion for rtaskctl
_rtaskctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} path= arguments=0 flags= list= option= i
    local -a where=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
`)
	takes, alone := whereOptions(app.Flags)
	fmt.Fprintf(&b, "        %s) where+=(\"${COMP_WORDS[i]}\" \"${COMP_WORDS[i + 1]}\"); ((++i == COMP_CWORD)) && option=${COMP_WORDS[i - 1]} ;;\n", strings.Join(takes, "|"))
	fmt.Fprintf(&b, "        %s|%s=*) where+=(\"${COMP_WORDS[i]}\") ;;\n", strings.Join(alone, "|"), strings.Join(takes, "=*|"))
	fmt.Fprintf(&b, "        %s) ((++i == COMP_CWORD)) && option=${COMP_WORDS[i - 1]} ;;\n", strings.Join(valued(app.Commands, app.Flags), "|"))
	b.WriteString("        -*) ;;\n        *)\n            case \"$path ${COMP_WORDS[i]}\" in\n")
	fmt.Fprintf(&b, "            \" \"*|%s) path=\"${path:+$path }${COMP_WORDS[i]}\" ;;\n", nested(app.Commands))
	b.WriteString(`            *) ((arguments++)) ;;
            esac
            ;;
        esac
        # The rest is a command's own.
        case $path in start|run) ((arguments > 0)) && break ;; esac
    done
    case $option in
    --input|--body|--socket|--cert|--ca|--csr|--out)
        compopt -o default
        return
        ;;
`)
	fmt.Fprintf(&b, `    -p|--property)
        compopt -o nospace
        COMPREPLY=($(compgen -S = -W '%s' -- "$cur"))
        return
        ;;
    esac
`, strings.Join(config.PropertyNames(), " "))
	b.WriteString("    case \"$path $option\" in\n")
	valueCases(app.Flags, app.Commands, "", func(pattern, list string) {
		fmt.Fprintf(&b, "    %s) list=%s ;;\n", valuePattern(pattern), shellQuote(asking(list, shellWhere)))
	})
	b.WriteString(`    esac
    if [[ -n $option ]]; then
        COMPREPLY=($(compgen -W "$(eval "$list")" -- "$cur"))
        return
    fi
`)
	b.WriteString("    case $path in\n")
	fmt.Fprintf(&b, "    '') flags='%s --help --version' list='echo %s' ;;\n", plainWords(app.Flags), namesOf(app.Commands))
	cases(app.Commands, "", func(path, flags, list string) {
		fmt.Fprintf(&b, "    '%s') flags='%s' list=%s ;;\n", path, flags, shellQuote(asking(list, shellWhere)))
	})
	b.WriteString(`    esac
    case $path in
    start|run)
        if ((arguments > 0)); then
            compopt -o default
            return
        fi
        ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
        return
    fi
    COMPREPLY=($(compgen -W "$(eval "$list")" -- "$cur"))
    case $path in start|run) COMPREPLY+=($(compgen -c -- "$cur")) ;; esac
}
complete -F _rtaskctl rtaskctl
`)
	return b.String()
}

func zshCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString(`#compdef rtaskctl
# zsh completion for rtaskctl
_rtaskctl() {
    local path_= i flags list option=
    local -a where=()
    integer arguments=0
    for ((i = 2; i < CURRENT; i++)); do
        case ${words[i]} in
`)
	takes, alone := whereOptions(app.Flags)
	fmt.Fprintf(&b, "        %s) where+=(\"${words[i]}\" \"${words[i + 1]}\"); ((++i == CURRENT)) && option=${words[i - 1]} ;;\n", strings.Join(takes, "|"))
	fmt.Fprintf(&b, "        %s|%s=*) where+=(\"${words[i]}\") ;;\n", strings.Join(alone, "|"), strings.Join(takes, "=*|"))
	fmt.Fprintf(&b, "        %s) ((++i == CURRENT)) && option=${words[i - 1]} ;;\n", strings.Join(valued(app.Commands, app.Flags), "|"))
	b.WriteString("        -*) ;;\n        *)\n            case \"$path_ ${words[i]}\" in\n")
	fmt.Fprintf(&b, "            \" \"*|%s) path_=\"${path_:+$path_ }${words[i]}\" ;;\n", nested(app.Commands))
	b.WriteString(`            *) ((arguments++)) ;;
            esac
            ;;
        esac
        case $path_ in start|run) ((arguments > 0)) && break ;; esac
    done
    case $option in --input|--body|--socket|--cert|--ca|--csr|--out) _files; return ;; esac
`)
	fmt.Fprintf(&b, "    case $option in -p|--property) compadd -S = -- %s; return ;; esac\n", strings.Join(config.PropertyNames(), " "))
	b.WriteString("    case \"$path_ $option\" in\n")
	valueCases(app.Flags, app.Commands, "", func(pattern, list string) {
		fmt.Fprintf(&b, "    %s) list=%s ;;\n", valuePattern(pattern), shellQuote(asking(list, shellWhere)))
	})
	b.WriteString("    esac\n    [[ -n $option ]] && { compadd -- ${=$(eval \"$list\")}; return; }\n")
	b.WriteString("    case $path_ in\n")
	fmt.Fprintf(&b, "    '') flags='%s --help --version' list='echo %s' ;;\n", plainWords(app.Flags), namesOf(app.Commands))
	cases(app.Commands, "", func(path, flags, list string) {
		fmt.Fprintf(&b, "    '%s') flags='%s' list=%s ;;\n", path, flags, shellQuote(asking(list, shellWhere)))
	})
	b.WriteString(`    esac
    if [[ $path_ == (start|run) ]] && ((arguments > 0)); then
        _files
        return
    fi
    if [[ ${words[CURRENT]} == -* ]]; then
        compadd -- ${=flags}
        return
    fi
    compadd -- ${=$(eval "$list")}
    [[ $path_ == (start|run) ]] && _command_names -e
}
compdef _rtaskctl rtaskctl
`)
	return b.String()
}

func fishCompletion(app *cli.App) string {
	var b strings.Builder
	b.WriteString("# fish completion for rtaskctl\ncomplete -c rtaskctl -f\n" + fishWhere(app.Flags))
	for _, f := range app.Flags {
		fishFlag(&b, "__fish_use_subcommand", "", f)
	}
	for _, c := range app.Commands {
		fmt.Fprintf(&b, "complete -c rtaskctl -n __fish_use_subcommand -a %s -d %s\n", c.Name, shellQuote(c.Usage))
		seen := "__fish_seen_subcommand_from " + c.Name
		if len(c.Subcommands) > 0 {
			none := shellQuote(seen + "; and not __fish_seen_subcommand_from " + namesOf(c.Subcommands))
			for _, s := range c.Subcommands {
				fmt.Fprintf(&b, "complete -c rtaskctl -n %s -a %s -d %s\n", none, s.Name, shellQuote(s.Usage))
				fishArguments(&b, shellQuote(seen+"; and __fish_seen_subcommand_from "+s.Name), c.Name+" "+s.Name, s.Flags)
			}
			continue
		}
		fishArguments(&b, shellQuote(seen), c.Name, c.Flags)
	}
	b.WriteString("complete -c rtaskctl -n '__fish_seen_subcommand_from start run' -a '(__fish_complete_command)'\n")
	return b.String()
}

func fishArguments(b *strings.Builder, condition, path string, flags []cli.Flag) {
	for _, f := range flags {
		fishFlag(b, condition, path, f)
	}
	if list := argumentsOf(path); list != "" {
		fmt.Fprintf(b, "complete -c rtaskctl -n %s -a %s\n", condition, fishList(list))
	}
}

func fishFlag(b *strings.Builder, condition, path string, f cli.Flag) {
	fmt.Fprintf(b, "complete -c rtaskctl -n %s", condition)
	for _, name := range f.Names() {
		if len(name) == 1 {
			fmt.Fprintf(b, " -s %s", name)
		} else {
			fmt.Fprintf(b, " -l %s", name)
		}
	}
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if d.TakesValue() {
			b.WriteString(" -r")
			if list := valuesOf(path, dashed(f.Names()[0])); list != "" {
				fmt.Fprintf(b, " -f -a %s", fishList(list))
			}
			if slices.Contains(f.Names(), "p") || slices.Contains(f.Names(), "property") {
				fmt.Fprintf(b, " -f -a '%s='", strings.Join(config.PropertyNames(), "= "))
			}
		}
		fmt.Fprintf(b, " -d %s", fishQuote(strings.ReplaceAll(d.GetUsage(), "`", "")))
	}
	b.WriteString("\n")
}

// shellQuote quotes for the shells of POSIX.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// fishQuote quotes for fish, which knows two escapes between single quotes.
func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
