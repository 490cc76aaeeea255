package expression

import (
	"slices"
	"sync"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/daemon/auth/webhook"
)

// The names that an expression may read.
const (
	nameBody   = "body"
	nameQuery  = "query"
	nameMethod = "method"
	nameRemote = "remote_addr"
	nameEvent  = "event"
	nameRef    = "ref"
	// nameHeader is a function: header("Name").
	nameHeader = "header"
)

// Input is a request as expressions read it. It is for one goroutine at a time.
type Input struct {
	// Event and Ref are what the request says happened, "" where it does not.
	Event, Ref string

	request *webhook.Request
	body    []byte
	// needs are what all expressions read of body and query.
	needs map[string]*need
	parts parts
	// json returns the body as JSON, or why it is none; bodyForm and query are the forms.
	json            func() (rawJSON, error)
	bodyForm, query func() (form, bool)
	// read is what expressions have read until now, by their needs.
	read map[*need]reading
	// steps is how many all evaluations have taken until now.
	steps int
}

// reading is what was read of a body or a query. Without a value, why says why there is none.
type reading struct {
	value cty.Value
	flaws []flaw
	why   string
}

// NewInput returns the input for all expressions of a webhook, and for no others. The body is that of the delivery, which GitHub may
// have put into a form; it is looked through once for all of them.
func NewInput(r *webhook.Request, d webhook.Delivery, all ...*Expression) *Input {
	in := &Input{
		Event: d.Event, Ref: d.Ref, request: r, body: d.Payload, needs: map[string]*need{nameBody: {}, nameQuery: {}},
		parts: parts{known: map[*byte]place{}, made: map[*byte]reading{}}, read: map[*need]reading{},
	}
	for _, e := range all {
		for root, n := range e.needs {
			if in.needs[root] != nil {
				in.needs[root].merge(n)
			}
		}
	}
	in.json = sync.OnceValues(func() (rawJSON, error) { return parseJSON(in.body) })
	in.bodyForm = sync.OnceValues(func() (form, bool) { return parseForm(string(in.body), in.needs[nameBody]) })
	in.query = sync.OnceValues(func() (form, bool) { return parseForm(in.request.Query, in.needs[nameQuery]) })
	return in
}

// of returns what an expression reads of body or query.
func (in *Input) of(e *Expression, root string) reading {
	n := e.needs[root]
	got, ok := in.read[n]
	switch {
	case ok:
		return got
	case root == nameBody:
		got = in.parseBody(n)
	case root == nameQuery:
		got = in.parseQuery(n)
	}
	in.read[n] = got
	return got
}

// parseBody reads what is needed of the body. The bytes of the body alone say whether it is JSON or a form: the header that says
// so is not signed.
func (in *Input) parseBody(n *need) reading {
	p := &picker{root: nameBody, parts: &in.parts}
	v, err := in.json()
	if v != nil {
		return reading{value: p.json(v, n, in.needs[nameBody], nil), flaws: p.flaws}
	}
	text := "the body is neither JSON nor a form"
	if err != nil {
		text = err.Error()
	} else if f, ok := in.bodyForm(); ok && len(in.body) > 0 {
		return reading{value: p.fields(f, n), flaws: p.flaws}
	}
	return reading{why: text}
}

func (in *Input) parseQuery(n *need) reading {
	p := &picker{root: nameQuery}
	p.parts = &in.parts
	f, ok := in.query()
	if !ok {
		return reading{why: "the query is not NAME=VALUE&…"}
	}
	return reading{value: p.fields(f, n), flaws: p.flaws}
}

// flaws are those of what an expression reads of body and query.
func (in *Input) flaws(e *Expression) []flaw {
	var all []flaw
	for _, root := range []string{nameBody, nameQuery} {
		if e.needs[root] != nil {
			all = append(all, in.of(e, root).flaws...)
		}
	}
	return all
}

// unfit returns why an expression cannot be evaluated at all.
func (in *Input) unfit(e *Expression) string {
	for _, f := range in.flaws(e) {
		if f.unfit {
			return f.text
		}
	}
	return ""
}

// inexact says why what an expression comes to is not known.
func (r *run) inexact(e *Expression) string {
	for _, f := range append(r.in.flaws(e), r.flaws...) {
		return f.text
	}
	return "it depends on text that is not valid, or not in Unicode's normal form NFC"
}

// exact returns the text that a node is, if it is nothing but a place in the body and HCL would change what is there.
func (in *Input) exact(e *Expression) (string, bool) {
	t, ok := plain(e.root).(*hclsyntax.ScopeTraversalExpr)
	if !ok || t.Traversal.RootName() != nameBody {
		return "", false
	}
	path := steps(t.Traversal)
	for _, f := range in.of(e, nameBody).flaws {
		if f.raw != "" && slices.Equal(f.path, path) {
			return f.raw, true
		}
	}
	return "", false
}

// variables are the values of the names that e reads. What the request does not have is not among them.
func (r *run) variables(e *Expression) map[string]cty.Value {
	in := r.in
	vars := map[string]cty.Value{}
	for root := range e.needs {
		switch root {
		case nameBody, nameQuery:
			if v := in.of(e, root).value; v != cty.NilVal {
				vars[root] = v
			}
		case nameMethod:
			r.put(vars, root, in.request.Method)
		case nameRemote:
			r.put(vars, root, in.request.Remote)
		case nameEvent:
			r.put(vars, root, in.Event)
		case nameRef:
			r.put(vars, root, in.Ref)
		}
	}
	return vars
}

// missing says why there is no value of a name, if more is to be said than that.
func (in *Input) missing(e *Expression, root string) string {
	if root == nameBody || root == nameQuery {
		return in.of(e, root).why
	}
	return ""
}

// put sets a name to a text, if there is one.
func (r *run) put(vars map[string]cty.Value, name, text string) {
	if text != "" {
		vars[name] = r.text(text, name)
	}
}

// text is a text that stands neither in the body nor in the query.
func (r *run) text(text, root string, path ...string) cty.Value {
	p := &picker{root: root}
	v := p.text(text, true, path)
	if len(r.flaws) == 0 {
		r.flaws = p.flaws
	}
	return v
}

// unknowns are values for a check of an expression without a request.
func unknowns() map[string]cty.Value {
	text := cty.UnknownVal(cty.String).RefineNotNull()
	return map[string]cty.Value{
		nameBody: cty.DynamicVal, nameQuery: cty.UnknownVal(cty.Map(cty.String)), nameMethod: text, nameRemote: text, nameEvent: text, nameRef: text,
	}
}

// header returns the value of a header. One that is there several times could be read in several ways, and has none.
func (r *run) header(name string) (cty.Value, string) {
	switch values := r.in.request.Headers.Values(name); len(values) {
	case 0:
		return cty.NilVal, "is missing"
	case 1:
		return r.text(values[0], nameHeader, name), ""
	default:
		return cty.NilVal, "is there several times"
	}
}
