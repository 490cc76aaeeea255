package ctl

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// boolFlag is a flag without a value.
func boolFlag(usage, name string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Aliases: aliases, Usage: usage, DisableDefaultText: true}
}

func jsonFlag() cli.Flag { return boolFlag("print the result as JSON", "json") }

// settings are the values of a flag that may come several times, exactly as they were given; the library's own trims
// them.
type settings []string

// Set implements cli.Generic.
func (s *settings) Set(value string) error {
	*s = append(*s, value)
	return nil
}

// String implements cli.Generic; it is the default in the help.
func (*settings) String() string { return "" }

// settingsOf are the values of a flag of settings.
func settingsOf(c *cli.Context, name string) settings {
	if s, ok := c.Generic(name).(*settings); ok && s != nil {
		return *s
	}
	return nil
}

// noEmptyFlag returns an error for a flag of this command that is set to nothing: a variable of a script that is not set must not be taken
// for a flag that is not there. What is wrong with one of settings, the engine says.
func noEmptyFlag(c *cli.Context) error {
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		_, exact := c.Generic(name).(*settings)
		if c.IsSet(name) && !exact && (c.String(name) == "" || slices.Contains(c.StringSlice(name), "")) {
			return misuse(c, "%s: it is empty", dashed(name))
		}
	}
	return nil
}

// flagsFirst are the commands whose arguments are another program's from the first one on.
func flagsFirst(name string) bool { return name == "start" || name == "run" }

// permute puts a command's flags before its arguments, wherever they stand, as getopt_long(3) does; the library stops at
// the first argument. Not so for a command that takes another's arguments. Global flags may come last, too.
func permute(root *cli.App, args []string) []string {
	if len(args) == 0 {
		return []string{root.Name}
	}
	global, rest := []string{args[0]}, args[1:]
	for len(rest) > 0 && isFlag(rest[0]) {
		n := width(root.Flags, rest)
		global, rest = append(global, rest[:n]...), rest[n:]
	}
	if len(rest) == 0 || rest[0] == "--" || flagsFirst(rest[0]) {
		return append(global, rest...)
	}
	if rest[0] == "help" && len(rest) > 1 && !isFlag(rest[1]) {
		return slices.Concat(global, rest[1:], []string{"--help"})
	}
	names, rest := rest[:1:1], rest[1:]
	command := root.Command(names[0])
	for command != nil && len(rest) > 0 {
		i := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if i < 0 {
			break
		}
		command = command.Subcommands[i]
		names, rest = append(names, rest[0]), rest[1:]
	}
	if command == nil {
		return args
	}
	var flags, plain []string
	for len(rest) > 0 {
		if rest[0] == "--" {
			plain = append(plain, rest[1:]...)
			break
		}
		n := 1
		switch {
		case !isFlag(rest[0]):
			plain = append(plain, rest[0])
		case find([]cli.Flag{cli.HelpFlag}, rest[0]) == nil && find(command.Flags, rest[0]) == nil && find(root.Flags, rest[0]) != nil:
			n = width(root.Flags, rest)
			global = append(global, rest[:n]...)
		default:
			n = width(command.Flags, rest)
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(global, names, flags, []string{"--"}, plain)
}

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' && arg != "--" }

// find returns the flag that arg is, or nil.
func find(flags []cli.Flag, arg string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// width is how many of args the flag at their beginning takes up.
func width(flags []cli.Flag, args []string) int {
	f, ok := find(flags, args[0]).(cli.DocGenerationFlag)
	if ok && f.TakesValue() && !strings.Contains(args[0], "=") {
		return min(2, len(args))
	}
	return 1
}
