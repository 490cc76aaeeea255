package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"

	"github.com/rtask/rtask/sandbox/safepath"
)

const (
	// maxFileBytes is the most a configuration file may hold.
	maxFileBytes = 1 << 20
	// maxTotalBytes is the most that all of them may hold, and maxFiles how many there may be.
	maxTotalBytes = 16 << 20
	maxFiles      = 4096
	// maxNesting is how deep brackets may stand in each other. HCL's parsers recurse without a bound of their own.
	maxNesting = 100
	// maxOperators is how many operators of HCL that make its parser recurse a file may hold. None is of use here.
	maxOperators = 1000
)

// source is one configuration file.
type source struct {
	// name is the path as opened.
	name string
	data []byte
	// json says that it is in HCL's JSON syntax.
	json bool
	// root says that it is rtask.hcl and not a file of tasks.
	root bool
	// origin is the file that it was made of, where it is not the file itself; nil: it is.
	origin *origin
	// templates are the byte offsets of each ${ and %{ that HCL would act on where there are none, in order. Native syntax only.
	templates []int
}

// File is a file that a configuration was made of.
type File struct {
	// Path is where it was, which findings name, and Root says that it is rtask.hcl and not a file of tasks.
	Path string `json:"path"`
	Root bool   `json:"root,omitempty"`
	// Data is what was in it, as asText has it.
	Data []byte `json:"data"`
}

// sourcesOf makes sources of files.
func sourcesOf(files []File) (sources []*source, diags Diagnostics) {
	for _, f := range files {
		if !strings.HasSuffix(f.Path, ".toml") {
			sources = append(sources, &source{name: f.Path, data: f.Data, json: isJSON(f.Path, f.Data), root: f.Root})
			continue
		}
		s, found := convert(f.Path, f.Data)
		diags = append(diags, found...)
		if s != nil {
			sources = append(sources, s)
		}
	}
	return sources, diags
}

// find reads what opts names.
func find(opts Options) ([]File, Diagnostics) {
	var found []File
	var diags Diagnostics
	files, total := 0, 0
	owner := opts.OwnerUID
	if opts.Elsewhere {
		owner = anybody
	}
	read := func(path string, root bool) {
		data, err := ReadTrusted(path, owner)
		files, total = files+1, total+len(data)
		if err == nil {
			data, err = asText(data)
		}
		switch {
		case err == nil:
			found = append(found, File{Path: path, Data: data, Root: root})
		case root && errors.Is(err, fs.ErrNotExist):
		default:
			diags = append(diags, fileError(path, err))
		}
	}
	if opts.File != "" {
		read(opts.File, true)
	}
	if opts.TaskFile != "" {
		read(opts.TaskFile, false)
	}
	if opts.Dir == "" {
		return found, diags
	}
	info, err := os.Stat(opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, diags
	}
	if err == nil {
		err = trusted(info, owner)
	}
	if err != nil {
		return found, append(diags, fileError(opts.Dir, err))
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		return found, append(diags, fileError(opts.Dir, err))
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".hcl") || strings.HasSuffix(name, ".hcl.json") || strings.HasSuffix(name, ".toml")) {
			read(filepath.Join(opts.Dir, name), false)
		}
		if files > maxFiles || total > maxTotalBytes {
			return nil, append(diags, fileError(opts.Dir, &distrust{
				fmt.Sprintf("refused: a configuration has %d files of %s together at most", maxFiles, sizeText(maxTotalBytes)), "",
			}))
		}
	}
	return found, diags
}

// distrust is why a file is not read although it could be, and what to do about it.
type distrust struct{ reason, remedy string }

func (d *distrust) Error() string { return d.reason }

// fileError is a finding about a file as a whole.
func fileError(path string, err error) Diagnostic {
	d := Diagnostic{File: path}
	var path1 *fs.PathError
	var refused *distrust
	switch {
	case errors.As(err, &refused):
		d.Summary, d.Detail = refused.reason, strings.ReplaceAll(refused.remedy, "FILE", path)
	case errors.As(err, &path1):
		d.Summary = fmt.Sprintf("cannot read it: %v", path1.Err)
	default:
		d.Summary = fmt.Sprintf("cannot read it: %v", err)
	}
	return d
}

// anybody is the owner of files whose owner and mode are not looked at.
const anybody = -1

// trusted returns an error if others than root and owner can write what info describes.
func trusted(info fs.FileInfo, owner int) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if owner == anybody {
		return nil
	}
	if !ok {
		return errors.New("its owner is not known")
	}
	if stat.Uid != 0 && int64(stat.Uid) != int64(owner) {
		return &distrust{
			fmt.Sprintf("refused: owned by uid %d, who could change what rtask runs", stat.Uid),
			fmt.Sprintf("Do: chown %d FILE", owner),
		}
	}
	if info.Mode().Perm()&0o022 != 0 {
		return &distrust{
			fmt.Sprintf("refused: its mode %04o lets others than its owner write it", info.Mode().Perm()),
			"Do: chmod go-w FILE",
		}
	}
	return nil
}

// ReadTrusted reads a regular file of at most 1 MiB that only root and owner can write. The file is judged once it is open.
func ReadTrusted(path string, owner int) (_ []byte, err error) {
	// A link that a user has put in its place could lead to another file that is trusted, whose secrets are not that user's.
	var f *os.File
	if owner == anybody {
		f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is not waited for
	} else {
		f, err = safepath.OpenFile(path, uint32(owner))
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &distrust{"refused: not a regular file", ""}
	}
	if err := trusted(info, owner); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, &distrust{"refused: longer than 1 MiB", "Spread the tasks over several files."}
	}
	return data, nil
}

// place returns the position of the byte at offset, and its line without its end. An offset outside the file is moved into
// it, one in a line's end to just behind the line.
func (s *source) place(offset int) (Pos, string) {
	pos, line := s.placeHere(offset)
	if s.origin != nil {
		return s.origin.place(s.name, pos.Line)
	}
	return pos, line
}

// placeHere is place in data, whatever that was made of.
func (s *source) placeHere(offset int) (Pos, string) {
	last := len(bytes.TrimRight(s.data, " \t\r\n"))
	offset = max(min(offset, last-1), 0)
	start := bytes.LastIndexByte(s.data[:offset], '\n') + 1
	line := s.data[start:]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	line = bytes.TrimRight(line, "\r")
	before := line[:min(offset-start, len(line))]
	return Pos{
		File:   s.name,
		Line:   bytes.Count(s.data[:start], []byte("\n")) + 1,
		Column: utf8.RuneCount(before) + 1,
	}, string(line)
}

// templated reports whether r holds a template that was reported.
func (s *source) templated(r hcl.Range) bool {
	for _, offset := range s.templates {
		if r.Start.Byte <= offset && offset < r.End.Byte {
			return true
		}
	}
	return false
}

// parse returns the file's body, or nil if it has errors that make a look at its contents pointless.
func (d *decoder) parse() hcl.Body {
	s := d.source
	if !utf8.Valid(s.data) {
		d.errorAt(invalidUTF8(s.data), "the file is not UTF-8 here", "Save it as UTF-8. Bytes that are no text cannot be written in a configuration file.")
		return nil
	}
	if s.json {
		if !d.shallowJSON() {
			return nil
		}
		file, diags := json.Parse(s.data, s.name)
		d.syntax(diags)
		if diags.HasErrors() {
			return nil
		}
		return file.Body
	}
	if !d.lex() {
		return nil
	}
	file, diags := hclsyntax.ParseConfig(s.data, s.name, hcl.InitialPos)
	d.checkTemplates(file.Body)
	d.syntax(diags)
	if diags.HasErrors() {
		return nil
	}
	return file.Body
}

// invalidUTF8 returns the offset of the first byte of data that is not UTF-8.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

// lex looks at the tokens of a file in native syntax before the parser does: it notes every template, and returns false for what
// would make the parser recurse too deep.
func (d *decoder) lex() bool {
	// What is wrong with the tokens themselves, the parser reports again.
	tokens, _ := hclsyntax.LexConfig(d.source.data, d.source.name, hcl.InitialPos)
	depth, operators := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			d.source.templates = append(d.source.templates, t.Range.Start.Byte)
			depth++
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			operators++
		}
		if depth > maxNesting || operators > maxOperators {
			d.errorAt(t.Range.Start.Byte, "too deeply nested", "")
			return false
		}
	}
	return true
}

// checkTemplates reports each template that does not stand in an expression over a webhook's request.
func (d *decoder) checkTemplates(body hcl.Body) {
	var allowed []hcl.Range
	if native, ok := body.(*hclsyntax.Body); ok && len(d.source.templates) > 0 {
		allowed = d.expressions(native)
	}
	in := func(offset int) bool {
		return slices.ContainsFunc(allowed, func(r hcl.Range) bool { return r.Start.Byte <= offset && offset < r.End.Byte })
	}
	d.source.templates = slices.DeleteFunc(d.source.templates, in)
	for _, offset := range d.source.templates {
		d.template(offset, d.source.data[offset] == '%')
	}
}

// expressions are where expressions over a webhook's request stand.
func (d *decoder) expressions(file *hclsyntax.Body) []hcl.Range {
	var found []hcl.Range
	for _, task := range file.Blocks {
		for _, hook := range task.Body.Blocks {
			for _, a := range d.tables.webhook.attributes {
				if one := hook.Body.Attributes[a.name]; one != nil && hook.Type == "webhook" && a.overRequest {
					found = append(found, one.Expr.Range())
				}
			}
		}
	}
	return found
}

// shallowJSON reports whether a file in JSON syntax is safe to give to a parser that recurses.
func (d *decoder) shallowJSON() bool {
	depth, inString := 0, false
	for i := 0; i < len(d.source.data); i++ {
		switch c := d.source.data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth > maxNesting {
			d.errorAt(i, "too deeply nested", "")
			return false
		}
	}
	return true
}

// template reports a ${, or with control a %{, that begins a template of HCL.
func (d *decoder) template(offset int, control bool) {
	if control {
		d.errorAt(offset, `"%{" begins a template of HCL, and there are none here`,
			`For the two characters themselves write "%%{".`)
		return
	}
	d.errorAt(offset, `unknown variable: "${" begins a template of HCL, and there are no variables here`,
		`For the two characters themselves, as a shell reads them, write "$${".`)
}

// syntax passes on what HCL found. On a line with a template that was reported it says nothing more: what HCL finds there
// follows from the template.
func (d *decoder) syntax(diags hcl.Diagnostics) {
	templates := map[int]bool{}
	for _, offset := range d.source.templates {
		pos, _ := d.source.place(offset)
		templates[pos.Line] = true
	}
	for _, h := range diags {
		offset := 0
		if h.Subject != nil {
			offset = h.Subject.Start.Byte
		}
		pos, _ := d.source.place(offset)
		if templates[pos.Line] {
			continue
		}
		// HCL begins its summaries with a capital letter.
		summary := h.Summary
		if len(summary) > 1 && summary[1] >= 'a' && summary[1] <= 'z' {
			summary = strings.ToLower(summary[:1]) + summary[1:]
		}
		d.errorAt(offset, summary, h.Detail)
	}
}
