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

// Parse sets what list says, by the same tables as a file is read with. Of a name that comes twice the last value holds,
// except that those that name a device add up. The error is about the first that is wrong, and says what would be right.
func (p *Properties) Parse(list []Property) error {
	all := newTables()
	t := draft{Task: Task{Limits: p.Limits, Timeout: p.Timeout, TimeoutStop: p.TimeoutStop, KillSignal: p.KillSignal, Sandbox: p.Sandbox}}
	limits, switches, others := all.limits.attributes, all.sandbox.attributes, properties(taskAttributes())
	done := map[string]bool{}
	if len(list) > maxProperties {
		return fmt.Errorf("there are %d properties, %d are the most", len(list), maxProperties)
	}
	// The profile goes first, wherever it stands.
	list = slices.SortedStableFunc(slices.Values(list), func(a, b Property) int {
		return cmp.Compare(btoi(a.Name != "profile"), btoi(b.Name != "profile"))
	})
	for _, one := range list {
		if len(one.Name) > maxProperty || len(one.Value) > maxProperty {
			return fmt.Errorf("the property %.40q is longer than %d bytes", wording.Printable(one.Name, "\t"), maxProperty)
		}
		is := func(name, directive string) bool { return one.Name == name || one.Name == directive }
		var err error
		if i := slices.IndexFunc(limits, func(a attribute[spec.Limits]) bool { return is(a.name, a.directive) }); i >= 0 {
			err = decodeProperty(all, limits[i], list, done, &t.Limits)
		} else if i := slices.IndexFunc(switches, func(a attribute[spec.Sandbox]) bool { return is(a.name, a.directive) }); i >= 0 {
			err = decodeProperty(all, switches[i], list, done, &t.Sandbox)
		} else if i := slices.IndexFunc(others, func(a attribute[draft]) bool { return is(a.name, a.directive) }); i >= 0 {
			err = decodeProperty(all, others[i], list, done, &t)
		} else {
			err = unknownProperty(one.Name, slices.Concat(all.limits.names(), all.sandbox.names(), scope[draft]{attributes: others}.names()))
		}
		if err != nil {
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

// properties are those of attributes that are properties.
func properties[T any](attributes []attribute[T]) []attribute[T] {
	return slices.DeleteFunc(attributes, func(a attribute[T]) bool { return a.directive == "" })
}

// decodeProperty decodes all that list says of one attribute, once.
func decodeProperty[T any](all *tables, a attribute[T], list []Property, done map[string]bool, t *T) error {
	if done[a.name] {
		return nil
	}
	done[a.name] = true
	var values []hclsyntax.Expression
	for _, one := range list {
		if one.Name == a.name || one.Name == a.directive {
			values = append(values, &hclsyntax.LiteralValueExpr{Val: cty.StringVal(one.Value)})
		}
	}
	v := value{name: a.name, example: strings.Trim(a.example, `["]`), property: true, expr: values[len(values)-1]}
	if a.several && len(values) > 1 {
		v.expr = &hclsyntax.TupleConsExpr{Exprs: values}
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

func unknownProperty(name string, names []string) error {
	text := fmt.Sprintf("there is no property %q", wording.Printable(name, "\t"))
	if near := nearest(name, names); near != "" {
		return fmt.Errorf("%s; did you mean %q?", text, near)
	}
	slices.Sort(names)
	return fmt.Errorf("%s; there are %s", text, strings.Join(names, ", "))
}
