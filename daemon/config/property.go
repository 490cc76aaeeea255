package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/rtask/rtask/sandbox/spec"
	"github.com/rtask/rtask/sandbox/wording"
)

// Properties are what a command can be given on the command line of what a task has in its configuration.
type Properties struct {
	Limits spec.Limits
	// Timeout, TimeoutStop and KillSignal are as those of a Task.
	Timeout, TimeoutStop time.Duration
	KillSignal           syscall.Signal
	Sandbox              spec.Sandbox
}

// Property is one NAME=VALUE as somebody gave it.
type Property struct {
	// Name is a name of limits { … } or sandbox { … }, or timeout, timeout_stop_sec or kill_signal; or the systemd directive
	// of the same meaning.
	Name, Value string
}

// maxProperty is the longest value that there is a use for, in bytes, and maxProperties the most that are taken at once.
const (
	maxProperty   = 4096
	maxProperties = 256
)

// property is what a command can be given of a T, as somebody calls it.
type property struct {
	name, directive string
	// set sets it to all of its values.
	set func(values []string) error
}

func (p property) is(name string) bool { return name == p.name || name == p.directive }

// properties are those of attributes that a command can be given.
func properties[T any](all *tables, s scope[T], t *T) []property {
	var found []property
	for _, a := range s.attributes {
		if a.directive != "" {
			found = append(found, property{a.name, a.directive, func(values []string) error { return setProperty(all, a, values, t) }})
		}
	}
	return found
}

// properties are all, which are set in d.
func (t *tables) properties(d *draft) []property {
	return slices.Concat(properties(t, t.limits, &d.Limits), properties(t, t.sandbox, &d.Sandbox), properties(t, t.task, d))
}

// PropertyNames are the names of all properties, as limits { … } and sandbox { … } have them.
func PropertyNames() []string {
	var names []string
	for _, p := range newTables().properties(new(draft)) {
		names = append(names, p.name)
	}
	return names
}

// Parse sets what list says, by the same tables as a file is read with. Of a name that comes twice the last value holds,
// except that those that name a device add up. The error is about the first that is wrong, and says what would be right.
func (p *Properties) Parse(list []Property) error {
	if len(list) > maxProperties {
		return fmt.Errorf("there are %d properties, %d are the most", len(list), maxProperties)
	}
	t := draft{Task: Task{Limits: p.Limits, Timeout: p.Timeout, TimeoutStop: p.TimeoutStop, KillSignal: p.KillSignal, Sandbox: p.Sandbox}}
	known := newTables().properties(&t)
	// The profile goes first, wherever it stands.
	list = slices.SortedStableFunc(slices.Values(list), func(a, b Property) int {
		return cmp.Compare(btoi(a.Name != "profile"), btoi(b.Name != "profile"))
	})
	done := map[string]bool{}
	for _, one := range list {
		if len(one.Name) > maxProperty || len(one.Value) > maxProperty {
			return fmt.Errorf("the property %.40q is longer than %d bytes", wording.Printable(one.Name, "\t"), maxProperty)
		}
		i := slices.IndexFunc(known, func(k property) bool { return k.is(one.Name) })
		if i < 0 {
			return unknownProperty(one.Name)
		}
		if done[known[i].name] {
			continue
		}
		done[known[i].name] = true
		var values []string
		for _, other := range list {
			if known[i].is(other.Name) {
				values = append(values, other.Value)
			}
		}
		if err := known[i].set(values); err != nil {
			return err
		}
		if one.Name == "profile" && t.Sandbox.Profile == ProfileOff {
			t.Sandbox = CommandSandbox()
		}
	}
	*p = Properties{Limits: t.Limits, Timeout: t.Timeout, TimeoutStop: t.TimeoutStop, KillSignal: t.KillSignal, Sandbox: t.Sandbox}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setProperty sets an attribute to values: to the last one, unless it is a list.
func setProperty[T any](all *tables, a attribute[T], values []string, t *T) error {
	var exprs []hclsyntax.Expression
	for _, text := range values {
		exprs = append(exprs, &hclsyntax.LiteralValueExpr{Val: cty.StringVal(text)})
	}
	v := value{name: a.name, example: strings.Trim(a.example, `["]`), property: true, expr: exprs[len(exprs)-1]}
	if a.several && len(exprs) > 1 {
		v.expr = &hclsyntax.TupleConsExpr{Exprs: exprs}
	}
	d := &decoder{source: &source{}, tables: all}
	a.decode(d, v, t)
	for _, found := range d.diags {
		if found.Severity != SeverityError {
			continue
		}
		text := wording.Printable(found.Summary, "\t")
		if found.Detail != "" {
			text += ". " + wording.Printable(found.Detail, "\t")
		}
		return errors.New(strings.TrimSuffix(text, "."))
	}
	return nil
}

func unknownProperty(name string) error {
	names := PropertyNames()
	text := fmt.Sprintf("there is no property %q", wording.Printable(name, "\t"))
	if near := nearest(name, names); near != "" {
		return fmt.Errorf("%s; did you mean %q?", text, near)
	}
	slices.Sort(names)
	return fmt.Errorf("%s; there are %s", text, strings.Join(names, ", "))
}
