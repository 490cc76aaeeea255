package expression

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/sandbox/wording"
)

const (
	// maxValues is how many values an expression may read of an object or a list, with all that is in it, maxText how many bytes of
	// text, and maxDepth how deep they may stand in each other. All expressions of a request read atOnce times as much together.
	maxValues = 50_000
	maxText   = 1 << 20
	maxDepth  = 64
	atOnce    = 4
)

// flaw is something that cannot be read, at a path below the root.
type flaw struct {
	path []string
	text string
	// unfit says that a request with it cannot be judged. Otherwise the value there is unknown.
	unfit bool
	// raw is the text there, where it is some.
	raw string
}

// picker makes values of those parts of data that expressions read.
type picker struct {
	root        string
	parts       *parts
	values, len int
	flaws       []flaw
}

// label is how messages call what is at a path.
func (p *picker) label(path []string) string {
	const longest = 60
	return cut(wording.Printable(strings.Join(append([]string{p.root}, path...), "."), ""), longest)
}

func (p *picker) flaw(path []string, unfit bool, raw, format string, args ...any) {
	const most = 100 // of which the first one is told
	if len(p.flaws) < most || unfit {
		p.flaws = append(p.flaws, flaw{path: slices.Clone(path), text: fmt.Sprintf(format, args...), unfit: unfit, raw: raw})
	}
}

func (p *picker) twice(path []string) {
	p.flaw(path, true, "", "%s is there twice", p.label(path))
}

// text is a string as it came. HCL makes one text of several that are the same to people (Unicode's form NFC, in which K, the
// sign for kelvins, is the letter K); such a one would be equal to what it is not.
func (p *picker) text(s string, exact bool, path []string) cty.Value {
	p.values, p.len = p.values+1, p.len+len(s)
	if !exact || !utf8.ValidString(s) {
		p.flaw(path, false, "", "%s is not valid text", p.label(path))
		return cty.UnknownVal(cty.String)
	}
	v := cty.StringVal(s)
	if v.AsString() != s {
		p.flaw(path, false, s, "%s is not in Unicode's normal form NFC, so it cannot be compared or changed", p.label(path))
		return cty.UnknownVal(cty.String)
	}
	return v
}

// full reports whether there is more than may be read.
func (p *picker) full() bool { return p.values > maxValues || p.len > maxText }

// json returns what n reads of a value. all is what all expressions read there.
func (p *picker) json(v rawJSON, n, all *need, path []string) cty.Value {
	switch {
	case n.whole:
		return p.made(v, path)
	case v[0] == '{':
		found := map[string]cty.Value{}
		here := p.parts.of(v, all)
		for _, name := range n.names() {
			below := n.at[name]
			one, ok := here.at[name]
			switch at := append(path, name); {
			case !ok:
			case one.twice:
				p.twice(at)
			default:
				found[name] = p.json(one.value, below, all.at[name], at)
			}
		}
		return cty.ObjectVal(found)
	case v[0] == '[':
		here := p.parts.of(v, all)
		found := make([]cty.Value, here.length)
		for i := range found {
			found[i] = cty.EmptyObjectVal // which nobody reads
		}
		for _, name := range n.names() {
			if one, ok := here.at[name]; ok {
				found[one.index] = p.json(one.value, n.at[name], all.at[name], append(path, name))
			}
		}
		return cty.TupleVal(found)
	default:
		return p.made(v, path)
	}
}

// made is all of a value. Several expressions that read it share it.
func (p *picker) made(v rawJSON, path []string) cty.Value {
	got, ok := p.parts.made[&v[0]]
	if !ok {
		q := &picker{root: p.root, parts: p.parts}
		got.value = q.whole(v, path, 0)
		q.close(path)
		got.flaws = q.flaws
		p.parts.made[&v[0]] = got
	}
	p.flaws = append(p.flaws, got.flaws...)
	return got.value
}

// close counts what p has read at path, and says whether that is too much.
func (p *picker) close(path []string) {
	all := p.parts
	all.values, all.bytes = all.values+p.values, all.bytes+p.len
	switch {
	case p.full():
		p.tooMuch(path)
	case all.values > atOnce*maxValues || all.bytes > atOnce*maxText:
		p.flaw(path, true, "", "%s is more than can be read here: all expressions together may read %d values and %d bytes of text", p.label(path),
			atOnce*maxValues, atOnce*maxText)
	}
}

func (p *picker) tooMuch(path []string) {
	p.flaw(path, true, "", "%s is more than can be read here: it may have %d values and %d bytes of text", p.label(path), maxValues, maxText)
}

// whole is all of a value.
func (p *picker) whole(v rawJSON, path []string, depth int) cty.Value {
	if p.full() {
		return cty.DynamicVal
	}
	if depth > maxDepth {
		p.flaw(path[:len(path)-depth], true, "", "%s is nested more than %d deep", p.label(path[:len(path)-depth]), maxDepth)
		p.values = maxValues + 1
		return cty.DynamicVal
	}
	p.values++
	switch v[0] {
	case 'n':
		return cty.NullVal(cty.DynamicPseudoType)
	case 't':
		return cty.True
	case 'f':
		return cty.False
	case '"':
		p.values-- // text counts it
		s, exact := v.string()
		return p.text(s, exact, path)
	case '[':
		var found []cty.Value
		v.elements(func(value rawJSON) bool {
			found = append(found, p.whole(value, append(path, strconv.Itoa(len(found))), depth+1))
			return !p.full()
		})
		return cty.TupleVal(found)
	case '{':
		found := map[string]cty.Value{}
		unknown := false
		v.members(func(name, value rawJSON) bool {
			key, exact := name.string()
			at := append(path, key)
			normal := p.text(key, exact, at)
			if !normal.IsKnown() {
				unknown = true
				return true
			}
			if _, ok := found[key]; ok {
				p.twice(at)
			}
			found[key] = p.whole(value, at, depth+1)
			return !p.full()
		})
		if unknown {
			return cty.DynamicVal
		}
		return cty.ObjectVal(found)
	default:
		n, err := v.number()
		if err != nil {
			p.flaw(path, false, "", "%s is too large a number", p.label(path))
			return cty.UnknownVal(cty.Number)
		}
		return n
	}
}

// fields returns what n reads of a form.
func (p *picker) fields(f form, n *need) cty.Value {
	found := map[string]cty.Value{}
	take := func(name string, one part) bool {
		path := []string{name}
		if one.twice {
			p.twice(path)
			return true
		}
		if n.whole && !p.text(name, true, path).IsKnown() {
			p.flaw(nil, true, "", "%s has a name that is not valid text in Unicode's normal form NFC", p.root)
			return true
		}
		found[name] = p.text(one.text, true, path)
		return !p.full()
	}
	if !n.whole {
		for _, name := range n.names() {
			if one, ok := f.at[name]; ok {
				take(name, one)
			}
		}
		p.close(nil)
		return cty.ObjectVal(found)
	}
	seen := map[string]bool{}
	eachField(f.raw, func(name, value string) bool {
		one := part{text: value, twice: seen[name]}
		seen[name] = true
		return take(name, one)
	})
	p.close(nil)
	return cty.ObjectVal(found)
}
