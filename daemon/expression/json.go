package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// rawJSON is a value as it stands in valid JSON. It begins with no space.
type rawJSON []byte

// parseJSON returns what a body has, if that is JSON. Its error says why it is not, for a body that begins like an object or a list.
func parseJSON(body []byte) (rawJSON, error) {
	start := bytes.TrimLeft(body, " \t\r\n")
	if json.Valid(body) {
		return rawJSON(start), nil
	}
	if len(start) == 0 || start[0] != '{' && start[0] != '[' {
		return nil, nil
	}
	var unread json.RawMessage
	return nil, fmt.Errorf("the body is not JSON: %w", json.Unmarshal(body, &unread))
}

// members calls each with the name, as it is written, and the value of each member, until that returns false.
func (v rawJSON) members(each func(name, value rawJSON) bool) {
	for i := v.space(1); v[i] != '}'; {
		end := v.stringEnd(i)
		name := v[i:end]
		i = v.space(v.space(end) + 1) // behind the colon
		end = v.end(i)
		if !each(name, v[i:end]) {
			return
		}
		if i = v.space(end); v[i] == ',' {
			i = v.space(i + 1)
		}
	}
}

// elements calls each with the value of each element, until that returns false.
func (v rawJSON) elements(each func(value rawJSON) bool) {
	for i := v.space(1); v[i] != ']'; {
		end := v.end(i)
		if !each(v[i:end]) {
			return
		}
		if i = v.space(end); v[i] == ',' {
			i = v.space(i + 1)
		}
	}
}

// name returns the name of a member.
func (v rawJSON) name() string {
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	s, _ := v.string()
	return s
}

// string returns a string. exact is false for one that is not the same text to every parser.
func (v rawJSON) string() (s string, exact bool) {
	inner := v[1 : len(v)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), utf8.Valid(inner)
	}
	err := json.Unmarshal(v, &s)
	return s, err == nil && utf8.Valid(inner) && !strings.ContainsRune(s, utf8.RuneError)
}

const (
	// maxDigits is how many characters a number may have, and maxExponent how large or small it may be, as a power of 2.
	maxDigits   = 150
	maxExponent = 4096
)

var errNumber = errors.New("a number is required")

// number returns a number, exactly.
func (v rawJSON) number() (cty.Value, error) {
	if len(v) > maxDigits {
		return cty.NilVal, errNumber
	}
	n, err := cty.ParseNumberVal(string(v))
	if err == nil && !fits(n) {
		err = errNumber
	}
	return n, err
}

// fits reports whether a number is one that may be written out.
func fits(v cty.Value) bool {
	e := exponent(v)
	return !v.AsBigFloat().IsInf() && -maxExponent <= e && e <= maxExponent
}

// exponent is that of a number, as a power of 2.
func exponent(v cty.Value) int { return v.AsBigFloat().MantExp(nil) }

func (v rawJSON) space(i int) int {
	for i < len(v) && (v[i] == ' ' || v[i] == '\t' || v[i] == '\r' || v[i] == '\n') {
		i++
	}
	return i
}

// stringEnd returns the end of the string that begins at i.
func (v rawJSON) stringEnd(i int) int {
	for i++; v[i] != '"'; i++ {
		if v[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// end returns the end of the value that begins at i.
func (v rawJSON) end(i int) int {
	for depth := 0; ; {
		switch v[i] {
		case '"':
			i = v.stringEnd(i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n': // within an object or a list
			i++
			continue
		default:
			for i < len(v) && strings.IndexByte(",]} \t\r\n", v[i]) < 0 {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}
