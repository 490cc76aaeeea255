package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// A body of JSON is read as the job's own parser reads it: a name is what it is to the letter, and one that rtask looks for may
// be there once only, since of two some parsers take the first and others the last. (encoding/json takes names in any letter
// case, and the last of several.)

// object is a part of a body: valid JSON, or nothing.
type object []byte

// bodyObject returns a body of JSON. A body of anything else says nothing.
func bodyObject(body []byte) object {
	if !json.Valid(body) {
		return nil
	}
	return object(bytes.TrimLeft(body, " \t\r\n"))
}

// members returns the values of the named members of an object, nil for what is missing or where o is no object. It returns an
// error around ErrBody where one of them is there twice.
func (o object) members(names ...string) (map[string]object, error) {
	found := map[string]object{}
	if len(o) == 0 || o[0] != '{' {
		return found, nil
	}
	for i := o.skipSpace(1); o[i] != '}'; {
		end := o.skipString(i)
		name := wanted(o[i:end], names)
		i = o.skipSpace(o.skipSpace(end) + 1) // behind the colon
		end = o.skipValue(i)
		if name != "" {
			if found[name] != nil {
				return nil, fmt.Errorf("%w: the name %q is there twice", ErrBody, name)
			}
			found[name] = o[i:end]
		}
		if i = o.skipSpace(end); o[i] == ',' {
			i = o.skipSpace(i + 1)
		}
	}
	return found, nil
}

// at returns the value at a path of names, nil where there is none. "[0]" is the first element of an array.
func (o object) at(path ...string) (object, error) {
	for _, name := range path {
		if name == "[0]" {
			array := o
			o = nil
			for o = range array.elements() {
				break
			}
			continue
		}
		m, err := o.members(name)
		if err != nil {
			return nil, err
		}
		o = m[name]
	}
	return o, nil
}

// elements are those of an array; of what is none, there are none.
func (o object) elements() iter.Seq[object] {
	return func(yield func(object) bool) {
		if len(o) == 0 || o[0] != '[' {
			return
		}
		for i := o.skipSpace(1); o[i] != ']'; {
			end := o.skipValue(i)
			if !yield(o[i:end]) {
				return
			}
			if i = o.skipSpace(end); o[i] == ',' {
				i = o.skipSpace(i + 1)
			}
		}
	}
}

// wanted returns the one of names that a string of JSON is, or "".
func wanted(text object, names []string) string {
	name := string(text[1 : len(text)-1])
	if strings.Contains(name, `\`) {
		name = text.text()
	}
	for _, n := range names {
		if n == name {
			return n
		}
	}
	return ""
}

// text returns a string, or "" for what is none or is no text in every parser's eyes.
func (o object) text() string {
	var s string
	if len(o) == 0 || o[0] != '"' || !utf8.Valid(o) || json.Unmarshal(o, &s) != nil || strings.ContainsRune(s, utf8.RuneError) {
		return ""
	}
	return s
}

// scalar returns a string, or a number as it is written.
func (o object) scalar() string {
	if len(o) > 0 && (o[0] == '-' || '0' <= o[0] && o[0] <= '9') {
		return string(o)
	}
	return o.text()
}

func (o object) skipSpace(i int) int {
	for i < len(o) && (o[i] == ' ' || o[i] == '\t' || o[i] == '\r' || o[i] == '\n') {
		i++
	}
	return i
}

// skipString returns the end of the string that begins at i.
func (o object) skipString(i int) int {
	for i++; o[i] != '"'; i++ {
		if o[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue returns the end of the value that begins at i.
func (o object) skipValue(i int) int {
	for depth := 0; ; {
		switch o[i] {
		case '"':
			i = o.skipString(i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n': // within an object or an array
			i++
			continue
		default:
			for i < len(o) && !strings.ContainsRune(",]} \t\r\n", rune(o[i])) {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}

// setMember is a body of JSON with a value at a path of names. All else stays as it is. A body that is no object has none.
func setMember(body []byte, path []string, value []byte) []byte {
	for i := len(path) - 1; i >= 0; i-- {
		o := bodyObject(body)
		inner, err := o.at(path[:i]...)
		if err != nil || len(o) == 0 || o[0] != '{' {
			return body
		}
		if len(inner) == 0 || inner[0] != '{' {
			inner = object("{}")
		}
		value = inner.with(path[i], value)
	}
	return value
}

// with is an object with a member that has another value, or is new.
func (o object) with(name string, value []byte) []byte {
	members, err := o.members(name)
	if old := members[name]; err == nil && old != nil {
		at := cap(o) - cap(old) // old is a part of o
		return slices.Concat(o[:at], value, o[at+len(old):])
	}
	comma := ","
	if o[o.skipSpace(1)] == '}' {
		comma = ""
	}
	return slices.Concat([]byte("{"), jsonText(name), []byte(":"), value, []byte(comma), o[1:])
}
