package config

import (
	"bytes"
	"errors"
	"path/filepath"
	"unicode/utf8"

	"github.com/rtask/rtask/daemon/config/oldtoml"
)

// origin is a config.toml that a source was made of.
type origin struct {
	data []byte
	// lines are, for each line of the source, the line of data that it comes from.
	lines []int
}

// convert makes a source of a config.toml.
func convert(path string, data []byte) (*source, Diagnostics) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, Diagnostics{fileError(path, err)}
	}
	hcl, err := oldtoml.Convert(data, dir)
	var wrong *oldtoml.Error
	switch {
	case errors.As(err, &wrong):
		o := &origin{data: data}
		d := Diagnostic{File: path, Summary: wrong.Text, Line: wrong.Line, Column: wrong.Column}
		if wrong.Line > 0 {
			d.Source = o.line(wrong.Line)
			d.Column = max(1, min(wrong.Column, utf8.RuneCountInString(d.Source)+1))
		}
		return nil, Diagnostics{d}
	case err != nil:
		return nil, Diagnostics{fileError(path, err)}
	}
	return &source{name: path, data: hcl.Text, origin: &origin{data: data, lines: hcl.Lines}}, nil
}

// line returns a line of the file without its end.
func (o *origin) line(n int) string {
	lines := bytes.Split(o.data, []byte("\n"))
	if n < 1 || n > len(lines) {
		return ""
	}
	return string(bytes.TrimRight(lines[n-1], "\r"))
}

// place returns the place of what a line of the source comes from, and the line there.
func (o *origin) place(name string, line int) (Pos, string) {
	from := 1
	if line >= 1 && line <= len(o.lines) {
		from = o.lines[line-1]
	}
	text := o.line(from)
	indent := len(text) - len(bytes.TrimLeft([]byte(text), " \t"))
	return Pos{File: name, Line: from, Column: min(indent, max(0, utf8.RuneCountInString(text)-1)) + 1}, text
}
