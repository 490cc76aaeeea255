package expression

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
)

// part is a member of an object, an element of a list or a field of a form.
type part struct {
	value rawJSON
	text  string // of a field
	index int
	// twice says that there are several of that name. Some parsers take the first and others the last.
	twice bool
}

// parts remembers where the parts of a body are that expressions read, so that a long object is looked through once for all, and the
// values that were made of them.
type parts struct {
	known map[*byte]place
	made  map[*byte]reading
	// values and bytes are how many values, and bytes of text, that are.
	values, bytes int
}

// place is what is known of an object or a list: the parts that are read, and of a list how many elements it has until the last of
// those.
type place struct {
	at     map[string]part
	length int
}

// of returns what is known of an object or a list, of which all is read.
func (p *parts) of(v rawJSON, all *need) place {
	found, ok := p.known[&v[0]]
	if !ok {
		if found = (place{at: map[string]part{}}); v[0] == '{' {
			found.object(v, all)
		} else {
			found.list(v, all)
		}
		p.known[&v[0]] = found
	}
	return found
}

func (f *place) object(v rawJSON, all *need) {
	v.members(func(name, value rawJSON) bool {
		key := name[1 : len(name)-1]
		if all.at[string(key)] == nil && bytes.IndexByte(key, '\\') < 0 {
			return true
		}
		if text := name.name(); all.at[text] != nil {
			_, twice := f.at[text]
			f.at[text] = part{value: value, twice: twice}
		}
		return true
	})
}

func (f *place) list(v rawJSON, all *need) {
	last := -1
	for name := range all.at {
		if i, err := strconv.Atoi(name); err == nil && strconv.Itoa(i) == name && i <= maxIndex {
			last = max(last, i)
		}
	}
	v.elements(func(value rawJSON) bool {
		if f.length > last {
			return false
		}
		if name := strconv.Itoa(f.length); all.at[name] != nil {
			f.at[name] = part{value: value, index: f.length}
		}
		f.length++
		return true
	})
}

// form is a form, application/x-www-form-urlencoded (url.spec.whatwg.org, section 5.1), with the fields that are read.
type form struct {
	raw string
	at  map[string]part
}

// parseForm returns the fields of a form that are read. It returns false for text that is no form.
func parseForm(text string, all *need) (form, bool) {
	if strings.Contains(text, ";") { // which some parsers take for an ampersand
		return form{}, false
	}
	f := form{raw: text, at: map[string]part{}}
	ok := eachField(text, func(name, value string) bool {
		if all.at[name] != nil {
			_, twice := f.at[name]
			f.at[name] = part{text: value, twice: twice}
		}
		return true
	})
	return f, ok
}

// eachField calls each with every field of a form, until that returns false. It returns false for text that is no form.
func eachField(text string, each func(name, value string) bool) bool {
	for pair := range strings.SplitSeq(text, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if pair == "" {
			continue
		}
		if !ok && strings.ContainsAny(name, " \n{<") { // any text
			return false
		}
		name, err := url.QueryUnescape(name)
		if err != nil {
			return false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return false
		}
		if !each(name, value) {
			break
		}
	}
	return true
}
