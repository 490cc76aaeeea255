package foreign

import (
	"slices"
	"strings"
)

// simple returns c without what is always or never true.
func (c *cond) simple() *cond {
	switch c.kind {
	case allOf, anyOf:
		out := &cond{kind: c.kind}
		neutral, decisive := isTrue, isFalse
		if c.kind == anyOf {
			neutral, decisive = isFalse, isTrue
		}
		for _, k := range c.kids {
			k = k.simple()
			switch k.kind {
			case neutral:
			case decisive:
				return k
			case c.kind:
				out.kids = append(out.kids, k.kids...)
			default:
				out.kids = append(out.kids, k)
			}
		}
		switch len(out.kids) {
		case 0:
			return &cond{kind: neutral}
		case 1:
			// By itself, a "not" without its data is true, and in an "and" it is not. An "or" makes what is missing false.
			if k := out.kids[0]; c.kind == allOf && k.kind != notOf || c.kind == anyOf && !k.needsData() {
				return k
			}
		}
		return out
	case notOf:
		k := c.kids[0].simple()
		switch k.kind {
		case isTrue:
			return &cond{kind: isFalse}
		case isFalse:
			return &cond{kind: isTrue}
		case notOf:
			return k.kids[0]
		}
		return &cond{kind: notOf, kids: []*cond{k}}
	default:
		return c
	}
}

// expression writes a simple condition. Without the data that a part of it is about, webhook takes that part for false, and
// everything around it, too, up to an "or" or the end of the rule; a "not" that stands there by itself is true. An expression of
// rtask ends with an error there, which triggers nothing. So the parts of an "or" are tried.
func (c *cond) expression() string {
	switch c.kind {
	case isTrue:
		return "true"
	case isFalse:
		return "false"
	case notOf:
		return c.negated()
	case anyOf:
		if len(c.kids) == 1 {
			return c.kids[0].expression()
		}
	}
	return c.strict()
}

// strict writes c so that missing data is an error.
func (c *cond) strict() string {
	switch c.kind {
	case aLeaf:
		return c.text
	case notOf:
		return c.kids[0].unless()
	case anyOf:
		var parts []string
		for _, k := range c.kids {
			parts = append(parts, k.alternative())
		}
		return strings.Join(parts, " || ")
	default:
		var parts []string
		for _, k := range c.kids {
			part := k.strict()
			if k.kind == anyOf {
				part = "(" + part + ")"
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, " && ")
	}
}

// unless writes that c is false, so that missing data is an error. HCL's && is false if one side is, whatever the other one lacks.
func (c *cond) unless() string {
	if c.kind != allOf || !c.needsData() {
		return "!(" + c.strict() + ")"
	}
	last := len(c.kids) - 1
	text := c.kids[last].unless()
	for _, k := range slices.Backward(c.kids[:last]) {
		text = "((" + k.strict() + ") ? " + text + " : true)"
	}
	return text
}

// alternative writes a part of an "or".
func (c *cond) alternative() string {
	switch {
	case c.kind == notOf && c.tried():
		return c.negated()
	case !c.needsData():
		return c.strict()
	default:
		return "try(" + c.strict() + ", false)"
	}
}

// needsData reports whether something may be missing for it.
func (c *cond) needsData() bool {
	if c.kind == aLeaf {
		return c.data != ""
	}
	for _, k := range c.kids {
		if c.kind != anyOf && k.needsData() {
			return true
		}
	}
	return false
}

// tried reports whether what negated writes of a "not" is never an error.
func (c *cond) tried() bool {
	k := c.kids[0]
	return k.kind == aLeaf || k.kind == allOf && onlyLeaves(k) || !k.needsData()
}

// negated writes a "not" that is true where data is missing. Data of another kind than it is about makes it false.
func (c *cond) negated() string {
	k := c.kids[0]
	switch {
	case k.kind == aLeaf && k.data != "":
		return "!try(" + k.text + ", can(" + k.data + "))"
	case k.kind == allOf && onlyLeaves(k):
		var parts []string
		for _, l := range k.kids {
			if l.data == "" {
				parts = append(parts, l.text)
			} else {
				parts = append(parts, "try("+l.text+", can("+l.data+"))")
			}
		}
		return "!(" + strings.Join(parts, " && ") + ")"
	default:
		return k.unless()
	}
}

func onlyLeaves(c *cond) bool {
	for _, k := range c.kids {
		if k.kind != aLeaf {
			return false
		}
	}
	return true
}
