package expression

import (
	"maps"
	"math/big"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// need is which parts of a value expressions read, so that no more of a body is made a value of.
type need struct {
	// whole says that all of it is read, and at has what is read by itself, by names of members or indexes of elements.
	whole bool
	at    map[string]*need
}

// maxIndex is the largest index of an element that is read by itself. One beyond it makes all of the list be read.
const maxIndex = 999

// add notes what a traversal reads below its root.
func (n *need) add(t hcl.Traversal) {
	for _, name := range steps(t) {
		n = n.below(name)
	}
	n.whole = true
}

// below returns what is read at a name.
func (n *need) below(name string) *need {
	if n.at == nil {
		n.at = map[string]*need{}
	}
	if n.at[name] == nil {
		n.at[name] = &need{}
	}
	return n.at[name]
}

// names are the names in at, in order.
func (n *need) names() []string { return slices.Sorted(maps.Keys(n.at)) }

// merge adds all that other reads.
func (n *need) merge(other *need) {
	n.whole = n.whole || other.whole
	for name, one := range other.at {
		n.below(name).merge(one)
	}
}

// steps are the names and indexes of a traversal below its root, as far as each can be read by itself.
func steps(t hcl.Traversal) (path []string) {
	for _, step := range t[1:] {
		switch s := step.(type) {
		case hcl.TraverseAttr:
			path = append(path, s.Name)
			continue
		case hcl.TraverseIndex:
			switch {
			case s.Key.IsNull() || !s.Key.IsKnown():
			case s.Key.Type() == cty.String:
				path = append(path, s.Key.AsString())
				continue
			case s.Key.Type() == cty.Number:
				if i, accuracy := s.Key.AsBigFloat().Int64(); accuracy == big.Exact && i >= 0 && i <= maxIndex {
					path = append(path, strconv.FormatInt(i, 10))
					continue
				}
			}
		}
		return path
	}
	return path
}
