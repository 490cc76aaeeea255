package foreign

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"go.yaml.in/yaml/v3"
)

const (
	// maxNodes is how much of a document is read, counting what it refers to as often as it does. A long text counts for several.
	maxNodes = 100_000
	// bytesPerNode is how much text counts for one more.
	bytesPerNode = 64
	// maxDepth is how deep lists and mappings may stand in each other.
	maxDepth = 100
)

// parse returns the root of a document in YAML, of which JSON is a part, without aliases: each is replaced by what it stands for.
func parse(data []byte) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, syntaxError(err)
	}
	if len(document.Content) != 1 {
		return nil, &Error{Text: "it is empty"}
	}
	left := maxNodes
	return resolve(document.Content[0], 0, &left)
}

// syntaxError is an error of the library with its line in its place.
func syntaxError(err error) *Error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if at := regexp.MustCompile(`^line ([0-9]{1,9}): (.*)`).FindStringSubmatch(text); at != nil {
		line, _ := strconv.Atoi(at[1]) // of digits
		return &Error{line, at[2]}
	}
	return &Error{Text: text}
}

func resolve(n *yaml.Node, depth int, left *int) (*yaml.Node, error) {
	*left -= 1 + len(n.Value)/bytesPerNode
	if *left < 0 || depth > maxDepth {
		return nil, &Error{n.Line, "it is too large or too deeply nested"}
	}
	if n.Kind == yaml.AliasNode {
		return resolve(n.Alias, depth+1, left)
	}
	whole := *n
	whole.Content = make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		var err error
		if whole.Content[i], err = resolve(c, depth+1, left); err != nil {
			return nil, err
		}
	}
	return &whole, nil
}

// mapping is an object of the document, read name by name. The first thing that is wrong stays.
type mapping struct {
	line   int
	names  []string
	values map[string]*yaml.Node
	lines  map[string]int
	// fold says that names are the same in both letter cases.
	fold bool
	err  *error
}

// object reads a mapping. It is empty if n is null.
func object(n *yaml.Node, what string, fold bool, err *error) *mapping {
	m := &mapping{line: n.Line, values: map[string]*yaml.Node{}, lines: map[string]int{}, fold: fold, err: err}
	if isNull(n) {
		return m
	}
	if n.Kind != yaml.MappingNode {
		m.wrong(n, "%s is not an object", what)
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || key.Tag == "!!binary" {
			m.wrong(key, "%s: write its names out: lists, objects, !!binary and << are not read here", what)
			continue
		}
		name := key.Value
		if fold {
			name = strings.ToLower(strings.ToUpper(name)) // as encoding/json does, to which ſ is an s
		}
		if m.values[name] != nil {
			m.wrong(key, "%s has %q twice", what, key.Value)
			continue
		}
		m.names = append(m.names, name)
		m.values[name], m.lines[name] = value, key.Line
	}
	return m
}

func (m *mapping) wrong(n *yaml.Node, format string, args ...any) {
	if *m.err == nil {
		*m.err = &Error{n.Line, fmt.Sprintf(format, args...)}
	}
}

// unknown returns the names that are not among known, in the order of the file.
func (m *mapping) unknown(known ...string) []string {
	return slices.DeleteFunc(slices.Clone(m.names), func(name string) bool { return slices.Contains(known, name) })
}

// take returns what a name has, or nil if that is nothing.
func (m *mapping) take(name string) *yaml.Node {
	n := m.values[name]
	if n == nil || isNull(n) {
		return nil
	}
	return n
}

// text reads a string. A number or a word that YAML takes for a truth is the string that it is written as, if both programs agree
// about that.
func (m *mapping) text(name string) string {
	n := m.take(name)
	if n == nil {
		return ""
	}
	return m.scalar(n, name)
}

func (m *mapping) scalar(n *yaml.Node, name string) string {
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!binary" || isNull(n):
		m.wrong(n, "%s is not a string", name)
		return ""
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return n.Value
	}
	plain := n.Value
	if slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, strings.ToLower(plain)) || n.Tag == "!!bool" && plain != "true" && plain != "false" {
		m.wrong(n, "%s: programs differ in whether this is a word or a truth. Put it in quotes", name)
		return ""
	}
	if n.Tag == "!!int" || n.Tag == "!!float" {
		if i, err := strconv.ParseInt(plain, 10, 64); err != nil || strconv.FormatInt(i, 10) != plain {
			m.wrong(n, "%s: programs differ in how they write this number. Put it in quotes", name)
		}
	}
	return plain
}

func (m *mapping) boolean(name string) bool {
	n := m.take(name)
	if n == nil {
		return false
	}
	if n.Kind == yaml.ScalarNode {
		switch strings.ToLower(n.Value) {
		case "true", "yes", "on", "y":
			return true
		case "false", "no", "off", "n":
			return false
		}
	}
	m.wrong(n, "%s is neither true nor false", name)
	return false
}

func (m *mapping) integer(name string) int {
	n := m.take(name)
	if n == nil {
		return 0
	}
	i, err := 0, errors.New("it is none")
	if n.Kind == yaml.ScalarNode {
		i, err = strconv.Atoi(n.Value)
	}
	if err != nil {
		m.wrong(n, "%s is not a number", name)
	}
	return i
}

// list returns the elements of a list.
func (m *mapping) list(name string) []*yaml.Node {
	n := m.take(name)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		m.wrong(n, "%s is not a list", name)
		return nil
	}
	return n.Content
}

func (m *mapping) texts(name string) []string {
	var all []string
	for _, n := range m.list(name) {
		all = append(all, m.scalar(n, name))
	}
	return all
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// representable reports whether HCL leaves a string as it is: it composes its characters.
func representable(s string) bool { return cty.NormalizeString(s) == s }
