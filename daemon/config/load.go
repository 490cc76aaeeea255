package config

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Options say what to load and what may be asked of the machine.
type Options struct {
	// File is rtask.hcl. One that does not exist, and "", are the defaults. With a name that ends in .toml it is a config.toml,
	// see package oldtoml.
	File string
	// Dir is tasks.d. One that does not exist, and "", are no tasks.
	Dir string
	// TaskFile is a file of tasks beside those of Dir, whatever its name is; "": none.
	TaskFile string
	// Part says that this is not a whole configuration: tasks that are named and not defined may stand elsewhere.
	Part bool
	// Elsewhere says that the files are not where an engine reads them: who owns them, and may write them, is not looked at.
	Elsewhere bool
	// OwnerUID may own the files beside root.
	OwnerUID int
	// LookupUser and LookupGroup return an error for a name that this machine does not know, StatDir for a path that is
	// no folder now. Each such error becomes a warning. A nil function is not asked; numbers are never looked up.
	LookupUser, LookupGroup, StatDir func(string) error
	// CheckEnvironmentFile returns why an environment_file cannot be read now, which becomes a warning.
	CheckEnvironmentFile func(string) error
	// CheckFile returns why a file that only root may write cannot be read now, which becomes a warning.
	CheckFile func(path string) error
	// IsRoot reports whether the name of a user is another one for root, which is an error where that must not be.
	IsRoot func(name string) bool
	// ReadSecret returns the secret in a file, as that of SecretReader does. A file that is not there becomes a warning. nil: no
	// file is read, and each is missing.
	ReadSecret func(path string) (string, error)
	// Exposed reports whether every user of the machine can read a file, which becomes a warning for one with a secret.
	Exposed func(path string) bool
	// Inspect returns what would keep a task from running on this machine now, each of which becomes a warning.
	Inspect func(*Task) []Finding
	// Calendars returns what systemd says of calendar events, one for one. nil: nobody asks, and each is taken.
	Calendars func(texts []string) []Calendar
	// Unscheduled returns why systemd cannot start tasks by themselves, which becomes a warning of those that have it do so; "": it can.
	Unscheduled func() string
	// CredentialsDir is the folder of the engine's credentials; "": it has none.
	CredentialsDir string
}

// ErrNoAnswer is returned by the functions of Options for a path of a file system that does not answer.
var ErrNoAnswer = errors.New("its file system does not answer")

// Finding is something about a task that would keep it from running.
type Finding struct {
	// Setting is the name of the attribute that it is about, Summary says what is wrong, and Detail what to do about it.
	Setting, Summary, Detail string
}

// Load reads opts.File and every *.hcl, *.hcl.json and *.toml file in opts.Dir, in the order of their names. Files whose names
// begin with a dot are left out.
//
// The Config is nil if the diagnostics have errors. Else they are the Config's Warnings. Load(Options{}) is the
// configuration of no files.
func Load(opts Options) (*Config, Diagnostics) {
	files, diags := find(opts)
	return load(files, diags, opts)
}

// LoadFiles is Load of files that were read before, in their order.
func LoadFiles(files []File, opts Options) (*Config, Diagnostics) { return load(files, nil, opts) }

func load(files []File, diags Diagnostics, opts Options) (*Config, Diagnostics) {
	sources, more := sourcesOf(files)
	diags = append(diags, more...)
	cfg, more := build(sources, opts)
	diags = append(diags, more...)
	hideSecretLines(diags, files)
	for i := range diags {
		diags[i] = diags[i].valid()
	}
	cfg.Warnings, cfg.Files = diags, files
	if diags.HasErrors() {
		return nil, diags
	}
	return cfg, diags
}

// build makes a configuration of sources: at most one root, which is the first.
func build(sources []*source, opts Options) (*Config, Diagnostics) {
	t := newTables()
	b := &builder{cfg: t.begin(), defaults: draft{Task: t.beginTask()}, triggers: map[string]triggers{}}
	var decoders []*decoder
	whole := true
	for _, s := range sources {
		d := &decoder{source: s, opts: opts, tables: t}
		decoders = append(decoders, d)
		body := d.parse()
		switch {
		case body == nil:
			whole = false
		case s.root:
			decodeBody(d, body, t.root, b)
		default:
			decodeBody(d, body, t.file, b)
		}
	}
	if whole && !opts.Part { // or names would be missing that stand in the file that cannot be read
		b.checkTriggers()
		b.checkRoles(decoders)
	}
	b.checkTokens(decoders)
	checkCalendars(decoders, opts.Calendars)
	var all Diagnostics
	for _, d := range decoders {
		slices.SortStableFunc(d.diags, func(x, y Diagnostic) int {
			if x.Line != y.Line {
				return x.Line - y.Line
			}
			if x.Column != y.Column {
				return x.Column - y.Column
			}
			return strings.Compare(x.Summary, y.Summary)
		})
		all = append(all, d.diags...)
	}
	return b.cfg, all
}

// MayDefine reports whether files that do not load may define a task of this name: it looks for the beginning of such a
// block, or in JSON for the name. An unreadable file may define anything.
func MayDefine(opts Options, name string) bool {
	block := regexp.MustCompile(`task\s+"?` + regexp.QuoteMeta(name) + `\b`)
	files, diags := find(opts)
	sources, more := sourcesOf(files)
	if append(diags, more...).HasErrors() {
		return true
	}
	return slices.ContainsFunc(sources, func(s *source) bool {
		return block.Match(s.data) || s.json && bytes.Contains(s.data, []byte(strconv.Quote(name)))
	})
}
