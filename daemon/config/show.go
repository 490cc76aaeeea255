package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/rtask/rtask/sandbox/wording"
)

// written are the values that stand in a file, by block and name: "timeout", "limits.memory_max".
type written map[string]cty.Value

// wrote notes a value. One that is wrong is reported by whoever decodes it.
func (d *decoder) wrote(name string, expr hcl.Expression) {
	if d.places != nil {
		d.places[name] = expr.Range()
	}
	if _, ok := d.written[d.settingKey(name)]; ok {
		return // its decoder has noted it
	}
	v, diags := expr.Value(&hcl.EvalContext{}) // which reads the escapes of JSON's strings, too
	if diags.HasErrors() {                     // it has no value before there is a request
		v = cty.StringVal(d.text(expr.Range())).Mark(asWritten{})
	}
	if v.IsWhollyKnown() {
		d.note(name, v)
	}
}

// note notes a value as it is to be shown.
func (d *decoder) note(name string, v cty.Value) {
	if d.written != nil {
		d.written[d.settingKey(name)] = v
	}
}

// settingKey is the name of a value in written.
func (d *decoder) settingKey(name string) string {
	return strings.Join(append(slices.Clone(d.path), name), ".")
}

// settingsOf returns all that holds for a task: what stands in its file goes before what stands in defaults.
func (b *builder) settingsOf(t *draft, own written) written {
	all := maps.Clone(b.defaults.written)
	if all == nil {
		all = written{}
	}
	if _, ok := own["sandbox.profile"]; ok { // it sets all of the rest
		maps.DeleteFunc(all, func(name string, _ cty.Value) bool { return strings.HasPrefix(name, "sandbox.") })
	}
	maps.Copy(all, own)
	for name, list := range map[string][]string{"on_failure": t.OnFailure, "on_success": t.OnSuccess} {
		if _, ok := all[name]; ok { // of defaults a task may have less
			all[name] = stringList(list)
		}
	}
	if len(t.Webhooks) > 0 { // whose defaults are others
		all["max_concurrent"], all["overflow"] = cty.NumberIntVal(int64(t.MaxConcurrent)), cty.StringVal(string(t.Overflow))
	}
	if len(t.env) > 0 { // and of both together this
		vars := map[string]cty.Value{}
		for name, v := range t.env {
			vars[name] = cty.StringVal(v)
		}
		all["environment"] = cty.ObjectVal(vars)
	}
	return all
}

// asWritten marks the text of an expression.
type asWritten struct{}

func stringList(list []string) cty.Value {
	values := make([]cty.Value, len(list))
	for i, s := range list {
		values[i] = cty.StringVal(s)
	}
	return cty.TupleVal(values)
}

// Show returns the effective configuration of a task, that of defaults and the defaults themselves included, as it would
// stand in a file of tasks.d, and the same as a JSON object. Without secrets, the values of environment are "…".
func (c *Config) Show(task string, secrets bool) (text string, object json.RawMessage, err error) {
	settings := maps.Clone(c.settings[task])
	if env, ok := settings["environment"]; ok && !secrets {
		hidden := map[string]cty.Value{}
		for name := range env.AsValueMap() {
			hidden[name] = cty.StringVal("…")
		}
		settings["environment"] = cty.ObjectVal(hidden)
	}
	var keys, inBlocks []string
	byDefault := map[string]bool{}
	for _, a := range taskScope().attributes {
		if _, ok := settings[a.name]; !ok {
			if a.fallback == "" {
				continue
			}
			settings[a.name], byDefault[a.name] = tabledValue(a.fallback), true
		}
		keys = append(keys, a.name)
	}
	fill(settings, byDefault, "pool", poolScope())
	for _, one := range sandboxSwitches() { // what is not written is what the profile says
		if key := "sandbox." + one.name; settings[key] == cty.NilVal {
			if text := one.in(c.Tasks[task].Sandbox.Profile); text != "" {
				settings[key], byDefault[key] = tabledValue(text), true
			}
		}
	}
	for _, p := range c.Tasks[task].Params {
		fill(settings, byDefault, "param "+wording.HCL(p.Name), paramScope())
	}
	if c.Tasks[task].Retry != (Retry{}) {
		fill(settings, byDefault, "retry", retryScope())
	}
	if c.Tasks[task].Schedule != nil {
		fill(settings, byDefault, "schedule", scheduleScope())
	}
	for _, w := range c.Tasks[task].Webhooks {
		block := "webhook " + wording.HCL(w.Name)
		fill(settings, byDefault, block, webhookScope())
		if byDefault[block+".replay"] && w.neverAgain() { // where it means nothing
			delete(settings, block+".replay")
		}
		if !secrets {
			hideSecrets(settings, block)
			w.hideStrings(settings, block)
		}
	}
	for key := range settings {
		if strings.Contains(key, ".") {
			inBlocks = append(inBlocks, key)
		}
	}
	slices.Sort(inBlocks)

	var b strings.Builder
	fmt.Fprintf(&b, "task %q {\n", task)
	top := map[string]any{}
	in, indent, into := "", "  ", top
	for _, key := range append(keys, inBlocks...) {
		block, name, nested := strings.Cut(key, ".")
		if !nested {
			block, name = "", key
		}
		if block != in {
			if in != "" {
				b.WriteString("  }\n")
			}
			fmt.Fprintf(&b, "\n  %s {\n", block)
			in, indent, into = block, "    ", map[string]any{}
			put(top, block, into)
		}
		note := ""
		if byDefault[key] {
			note = " # default"
			if p := c.Tasks[task].Sandbox.Profile; block == "sandbox" && p != ProfileDefault && key != "sandbox.profile" {
				note = " # " + p
			}
		}
		fmt.Fprintf(&b, "%s%s = %s%s\n", indent, name, asHCL(settings[key]), note)
		v := inJSON(settings[key])
		raw, err := ctyjson.Marshal(v, v.Type())
		if err != nil {
			return "", nil, fmt.Errorf("cannot show %s: %w", key, err)
		}
		into[name] = json.RawMessage(raw)
	}
	if in != "" {
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	object, err = json.Marshal(top)
	return b.String(), object, err
}

// put puts what stands in a block where it stands in JSON: below its name, and then below its label if it has one.
func put(top map[string]any, block string, into map[string]any) {
	name, label, ok := strings.Cut(block, " ")
	if !ok {
		top[name] = into
		return
	}
	labels, _ := top[name].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
		top[name] = labels
	}
	labels[strings.Trim(label, `"`)] = into
}

// hideSecrets puts "…" in place of the secrets of a webhook.
func hideSecrets(settings map[string]cty.Value, block string) {
	hidden := cty.StringVal("…")
	for _, name := range []string{".token", ".verify_token"} {
		if _, ok := settings[block+name]; ok {
			settings[block+name] = hidden
		}
	}
	if list, ok := settings[block+".secrets"]; ok {
		all := make([]cty.Value, list.LengthInt())
		for i := range all {
			all[i] = hidden
		}
		settings[block+".secrets"] = cty.TupleVal(all)
	}
}

// fill adds what holds by default in a block.
func fill[T any](settings map[string]cty.Value, byDefault map[string]bool, block string, s scope[T]) {
	for _, a := range s.attributes {
		key := block + "." + a.name
		if _, ok := settings[key]; !ok && a.fallback != "" {
			settings[key], byDefault[key] = tabledValue(a.fallback), true
		}
	}
}

// asHCL writes a value as it stands in a file.
func asHCL(v cty.Value) string {
	var parts []string
	switch t := v.Type(); {
	case v.HasMark(asWritten{}):
		text, _ := v.Unmark()
		return text.AsString()
	case v.IsNull():
		return "null"
	case t == cty.String:
		return wording.HCL(v.AsString())
	case t == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case t == cty.Bool:
		return strconv.FormatBool(v.True())
	case t.IsObjectType():
		for name, e := range v.AsValueMap() {
			parts = append(parts, name+" = "+asHCL(e))
		}
		slices.Sort(parts)
		return "{ " + strings.Join(parts, ", ") + " }"
	default:
		for _, e := range v.AsValueSlice() {
			parts = append(parts, asHCL(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
}

// inJSON is a value as it stands in HCL's JSON syntax, where an expression is a template.
func inJSON(v cty.Value) cty.Value {
	switch {
	case v.HasMark(asWritten{}):
		text, _ := v.Unmark()
		return cty.StringVal("${" + text.AsString() + "}")
	case v.Type().IsObjectType() && v.ContainsMarked():
		members := v.AsValueMap()
		for name, one := range members {
			members[name] = inJSON(one)
		}
		return cty.ObjectVal(members)
	}
	return v
}

// tabledValue is a value out of a table.
func tabledValue(text string) cty.Value {
	v, diags := tabled(text).Value(nil)
	if diags.HasErrors() {
		panic(diags.Error())
	}
	return v
}
