package expression

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are those that an expression may call, beside header, try and can, which are parts of the language here. None reads a
// file, a clock or anything else but its arguments. What takes more than a look at each argument, or makes much of little, is
// bounded here; some of cty's functions are left out for that (format, range, distinct, merge).
func functions() map[string]function.Function {
	return map[string]function.Function{
		"lower": stdlib.LowerFunc, "upper": stdlib.UpperFunc, "trimspace": stdlib.TrimSpaceFunc,
		"trim": checked(stdlib.TrimFunc, func(args []cty.Value) error {
			if len(args[1].AsString()) > maxCutset { // each character is looked for in it
				return function.NewArgErrorf(1, "it has more than %d bytes", maxCutset)
			}
			return nil
		}),
		"trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc, "substr": stdlib.SubstrFunc,
		"split": checked(stdlib.SplitFunc, func(args []cty.Value) error {
			if strings.Count(args[1].AsString(), args[0].AsString()) > maxValues {
				return function.NewArgErrorf(1, "it has more than %d parts", maxValues)
			}
			return nil
		}),
		"regex": stdlib.RegexFunc,
		"regexall": checked(stdlib.RegexAllFunc, func(args []cty.Value) error {
			if len(args[1].AsString()) > maxMatched {
				return function.NewArgErrorf(1, "it has more than %d bytes", maxMatched)
			}
			return nil
		}),
		"startswith": ofTexts(strings.HasPrefix, "string", "prefix"), "endswith": ofTexts(strings.HasSuffix, "string", "suffix"),
		"strcontains": ofTexts(strings.Contains, "string", "part"),
		"replace":     replaceFunction(), "join": joinFunction(),

		"contains": stdlib.ContainsFunc, "keys": stdlib.KeysFunc, "values": stdlib.ValuesFunc, "lookup": stdlib.LookupFunc,
		"concat": stdlib.ConcatFunc, "flatten": stdlib.FlattenFunc,
		"length": lengthFunction(), "coalesce": coalesceFunction(), "anytrue": ofConditions(true), "alltrue": ofConditions(false),

		"min": stdlib.MinFunc, "max": stdlib.MaxFunc, "abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc,
		"tostring": stdlib.MakeToFunc(cty.String), "tonumber": stdlib.MakeToFunc(cty.Number), "tobool": stdlib.MakeToFunc(cty.Bool),
		"jsonencode": stdlib.JSONEncodeFunc, "jsondecode": jsonFunction(), "base64decode": base64Function(),

		"cidrcontains": cidrFunction(), "sha256": sha256Function(),
	}
}

const (
	// maxCutset is how many bytes of characters trim takes away, and maxMatched in how many bytes regexall looks for each match.
	maxCutset  = 256
	maxMatched = 16 << 10
)

// checked is a function of strings that refuses some of them.
func checked(f function.Function, check func(args []cty.Value) error) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(),
		Type: func(args []cty.Value) (cty.Type, error) {
			for _, v := range args {
				if !v.IsKnown() || v.IsNull() {
					return f.ReturnTypeForValues(args)
				}
			}
			if err := check(args); err != nil {
				return cty.NilType, err
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// weights are how much more than other text that weighs which a function works on.
func weights(name string) int {
	switch name {
	case "tonumber", "min", "max", "abs", "ceil", "floor":
		return numberFactor
	case "substr", "replace", "split":
		return 8
	case "upper", "lower", "sha256", "base64decode", "jsondecode":
		return 4
	}
	return 1
}

// syntaxes are the calls that are parts of the language.
func syntaxes() []string { return []string{nameHeader, "try", "can"} }

// textParam is a parameter that is a string.
func textParam(name string) function.Parameter {
	return function.Parameter{Name: name, Type: cty.String}
}

// anyParam is a parameter of any type.
func anyParam(name string) function.Parameter {
	return function.Parameter{Name: name, Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true, AllowNull: true}
}

// ofTexts is a function that asks something of two strings.
func ofTexts(is func(s, t string) bool, first, second string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam(first), textParam(second)},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(is(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

var errLong = fmt.Errorf("the result has more than %d bytes", maxText)

func replaceFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("string"), textParam("old"), textParam("new")},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, before, after := args[0].AsString(), args[1].AsString(), args[2].AsString()
			if n := strings.Count(s, before); len(s)+n*(len(after)-len(before)) > maxText {
				return cty.NilVal, errLong
			}
			return cty.StringVal(strings.ReplaceAll(s, before, after)), nil
		},
	})
}

// elements calls each with every known element of the list that is an argument, as a type. known is false if there are others. cty
// takes time with the square of its length to make a list of one type of it.
func elements(list cty.Value, arg int, as cty.Type, each func(cty.Value) error) (known bool, err error) {
	if t := list.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return false, function.NewArgErrorf(arg, "a list is required")
	}
	if !list.IsKnown() {
		return false, nil
	}
	known = true
	for it := list.ElementIterator(); it.Next(); {
		_, v := it.Element()
		if !v.IsKnown() {
			known = false
			continue
		}
		v, err := convert.Convert(v, as)
		if err != nil || v.IsNull() {
			return false, function.NewArgErrorf(arg, "each of the list must be %s", kindOf(as))
		}
		if err := each(v); err != nil {
			return false, err
		}
	}
	return known, nil
}

func joinFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("separator"), {Name: "list", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			separator, size := args[0].AsString(), 0
			var parts []string
			known, err := elements(args[1], 1, cty.String, func(v cty.Value) error {
				parts = append(parts, v.AsString())
				if size += len(separator) + len(v.AsString()); size > maxText {
					return errLong
				}
				return nil
			})
			switch {
			case err != nil:
				return cty.NilVal, err
			case !known:
				return cty.UnknownVal(cty.String), nil
			}
			return cty.StringVal(strings.Join(parts, separator)), nil
		},
	})
}

// lengthFunction counts the characters of a string, the elements of a list and the members of an object.
func lengthFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowUnknown: true}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v := args[0]
			switch t := v.Type(); {
			case t.IsTupleType():
				return cty.NumberIntVal(int64(t.Length())), nil
			case t.IsObjectType():
				return cty.NumberIntVal(int64(len(t.AttributeTypes()))), nil
			case t == cty.DynamicPseudoType, !v.IsKnown():
				return cty.UnknownVal(cty.Number), nil
			case t == cty.String:
				return cty.NumberIntVal(int64(utf8.RuneCountInString(v.AsString()))), nil
			case t.IsCollectionType():
				return v.Length(), nil
			}
			return cty.NilVal, function.NewArgErrorf(0, "a string, a list or an object is required")
		},
	})
}

// coalesceFunction returns the first of its arguments that is neither null nor an empty string.
func coalesceFunction() function.Function {
	choose := func(args []cty.Value) (cty.Value, error) {
		for _, v := range args {
			switch {
			case !v.IsKnown():
				return cty.DynamicVal, nil
			case !v.IsNull() && (v.Type() != cty.String || v.AsString() != ""):
				return v, nil
			}
		}
		return cty.NilVal, errors.New("each is null or empty")
	}
	values := anyParam("values")
	return function.New(&function.Spec{
		VarParam: &values,
		Type: func(args []cty.Value) (cty.Type, error) {
			v, err := choose(args)
			if err != nil {
				return cty.NilType, err
			}
			return v.Type(), nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return choose(args) },
	})
}

// ofConditions is a function of a list of conditions: whether one of them is what asked says, or, for false, whether all are true.
func ofConditions(asked bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			found := false
			known, err := elements(args[0], 0, cty.Bool, func(v cty.Value) error {
				found = found || v.True() == asked
				return nil
			})
			switch {
			case err != nil:
				return cty.NilVal, err
			case found:
				return cty.BoolVal(asked), nil
			case !known:
				return cty.UnknownVal(cty.Bool), nil
			}
			return cty.BoolVal(!asked), nil
		},
	})
}

// jsonFunction reads JSON as the body is read.
func jsonFunction() function.Function {
	decode := func(text string) (cty.Value, error) {
		v, err := parseJSON([]byte(text))
		if err != nil || v == nil {
			return cty.NilVal, function.NewArgErrorf(0, "it is not JSON")
		}
		p := &picker{root: "it"}
		value := p.whole(v, nil, 0)
		if p.full() {
			p.tooMuch(nil)
		}
		for _, f := range p.flaws {
			if f.unfit {
				return cty.NilVal, function.NewArgErrorf(0, "%s", f.text)
			}
		}
		return value, nil
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("string")},
		Type: func(args []cty.Value) (cty.Type, error) {
			if !args[0].IsKnown() {
				return cty.DynamicPseudoType, nil
			}
			v, err := decode(args[0].AsString())
			if err != nil {
				return cty.NilType, err
			}
			return v.Type(), nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return decode(args[0].AsString()) },
	})
}

// base64Function decodes base64 of either alphabet, padded or not, of text.
func base64Function() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("string")},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(args[0].AsString(), "="))
			b, err := base64.RawStdEncoding.DecodeString(text)
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(0, "it is not base64")
			}
			return (&picker{root: "it"}).text(string(b), true, nil), nil
		},
	})
}

// cidrFunction reports whether the first is a network that has the second in it, an address or a network.
func cidrFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("network"), textParam("address")},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			outer, err := netip.ParsePrefix(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(0, `it is not a network: write "192.0.2.0/24" or "2001:db8::/32"`)
			}
			text := args[1].AsString()
			if inner, err := netip.ParsePrefix(text); err == nil {
				return cty.BoolVal(outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())), nil
			}
			address, err := netip.ParseAddr(text)
			if err != nil {
				return cty.NilVal, function.NewArgErrorf(1, "it is no address")
			}
			return cty.BoolVal(outer.Contains(address.WithZone("").Unmap())), nil
		},
	})
}

// sha256Function is the SHA-256 of a string, in hexadecimal digits. A secret that a request has is compared with its sum: neither
// the configuration nor how long it takes tells what it is.
func sha256Function() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{textParam("string")},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			sum := sha256.Sum256([]byte(args[0].AsString()))
			return cty.StringVal(hex.EncodeToString(sum[:])), nil
		},
	})
}

const (
	// maxPattern is how many bytes a regular expression may have, and maxProgram how many instructions that becomes: matching
	// takes one for each of them and each byte, at most.
	maxPattern = 1000
	maxProgram = 1000
)

// checkPattern returns how many instructions a regular expression becomes.
func checkPattern(pattern string) (int, error) {
	if len(pattern) > maxPattern {
		return 0, fmt.Errorf("it has more than %d bytes", maxPattern)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, err
	}
	if len(program.Inst) > maxProgram {
		return 0, errors.New("it repeats too much")
	}
	return len(program.Inst), nil
}

// patternCost is how much more than others the text weighs that a pattern is looked for in.
func patternCost(e hclsyntax.Expression) int {
	pattern, ok := literalText(e)
	n, err := checkPattern(pattern)
	if !ok || err != nil {
		return maxProgram // which check has reported
	}
	return n
}

// literalText returns the text of a string without templates, before it is metered.
func literalText(e hclsyntax.Expression) (string, bool) {
	t, ok := plain(e).(*hclsyntax.TemplateExpr)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for _, part := range t.Parts {
		literal, ok := part.(*hclsyntax.LiteralValueExpr)
		if !ok || literal.Val.Type() != cty.String {
			return "", false
		}
		b.WriteString(literal.Val.AsString())
	}
	return b.String(), true
}
