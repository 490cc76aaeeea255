package webhook

import (
	"fmt"
	"strings"
)

// Place is where in a request something stands: in a header or in the body. The zero value is nowhere.
type Place struct {
	// Header has the names of one header, of which the first that is there counts.
	Header []string
	// Field is a part of that header, which is a list with commas: "t" is the value of t=….
	Field string
	// Body is a path in a body of JSON: names, and "[0]" for the first of an array.
	Body []string
}

// IsZero reports whether it is nowhere.
func (p Place) IsZero() bool { return len(p.Header) == 0 && len(p.Body) == 0 }

// String returns the place as a configuration names it: header("X-Event-Key"), body.event.id.
func (p Place) String() string {
	if len(p.Body) > 0 {
		return "body." + path(p.Body)
	}
	var names []string
	for _, name := range p.Header {
		text := fmt.Sprintf("header(%q)", name)
		if p.Field != "" {
			text += " " + p.Field + "="
		}
		names = append(names, text)
	}
	return strings.Join(names, " or ")
}

// path returns a path as a configuration writes it.
func path(names []string) string {
	return strings.ReplaceAll(strings.Join(names, "."), ".[", "[")
}

// in returns what stands there in a request that has passed, "" for nothing. A header that is there twice says nothing, and of
// several things in a body that have the same name none is right, which is an error around ErrBody.
func (p Place) in(h Headers, o object) (string, error) {
	if len(p.Body) == 0 {
		return h.get(p.Header...), nil
	}
	v, err := o.at(p.Body...)
	return v.scalar(), err
}

// header is the place of a header with one of names.
func header(names ...string) Place { return Place{Header: names} }

// body is a place in the body.
func body(path ...string) Place { return Place{Body: path} }
