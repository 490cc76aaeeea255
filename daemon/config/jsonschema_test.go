package config

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// fits returns what is wrong with a value by a schema, as far as JSONSchema uses JSON Schema (json-schema.org, 2020-12).
func fits(schema map[string]any, value any, path string) error {
	kind := ""
	switch value.(type) {
	case bool:
		kind = "boolean"
	case string:
		kind = "string"
	case json.Number:
		kind = "number"
	case []any:
		kind = "array"
	case map[string]any:
		kind = "object"
	}
	switch types := schema["type"].(type) {
	case string:
		if kind != types {
			return fmt.Errorf("%s is %s, not %s", path, kind, types)
		}
	case []any:
		if !slices.Contains(types, any(kind)) {
			return fmt.Errorf("%s is %s, not one of %v", path, kind, types)
		}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		return fmt.Errorf("%s is %v, not one of %v", path, value, enum)
	}
	if n, ok := value.(json.Number); ok {
		for bound, wrong := range map[string]int{"minimum": -1, "maximum": 1} {
			if most, ok := schema[bound].(json.Number); ok && rational(n).Cmp(rational(most)) == wrong {
				return fmt.Errorf("%s is %v, beyond the %s of %v", path, n, bound, most)
			}
		}
	}
	if list, ok := value.([]any); ok {
		for i, e := range list {
			if err := fits(schema["items"].(map[string]any), e, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	}
	members, _ := value.(map[string]any)
	for _, name := range listed(schema["required"]) {
		if _, ok := members[name]; !ok {
			return fmt.Errorf("%s has no %s", path, name)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, member := range members {
		of, ok := properties[name].(map[string]any)
		if !ok {
			of, ok = schema["additionalProperties"].(map[string]any)
		}
		if !ok {
			return fmt.Errorf("%s has %s", path, name)
		}
		if err := fits(of, member, path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func rational(n json.Number) *big.Rat {
	r, _ := new(big.Rat).SetString(n.String())
	return r
}

func listed(v any) []string {
	all, _ := v.([]any)
	var names []string
	for _, one := range all {
		names = append(names, one.(string))
	}
	return names
}

func parsedJSON(t *testing.T, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// TestJSONSchema: the schema takes the example and the default of each setting, and what is shown of a task, and refuses what
// a file may not have.
func TestJSONSchema(t *testing.T) {
	text, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	schema := parsedJSON(t, text)
	in := func(block string, inner map[string]any) map[string]any {
		task := map[string]any{"command": []any{"true"}}
		top := map[string]any{"task": map[string]any{"t": task}}
		switch block {
		case "":
			return inner
		case "argon2", "retention", "remote", "authority", "defaults":
			return map[string]any{block: inner}
		case "provider", "role":
			for name, v := range map[string]any{"provider": map[string]any{"issuer": "https://x"}, "role": map[string]any{"methods": []any{"run"}}}[block].(map[string]any) {
				if _, ok := inner[name]; !ok {
					inner[name] = v
				}
			}
			return map[string]any{block: map[string]any{"x": inner}}
		case "task":
			for name, v := range inner {
				task[name] = v
			}
		case "param", "webhook":
			task[block] = map[string]any{"x": inner}
		default:
			task[block] = inner
		}
		return top
	}
	for _, s := range Settings() {
		for _, written := range []string{s.Example, s.Default} {
			if written == "" {
				continue
			}
			v := cty.StringVal(written) // as JSON has an expression
			switch s.Type {
			case "expression":
			case "object of expressions":
				v = cty.ObjectVal(map[string]cty.Value{"a": v, "b": cty.NumberIntVal(5)})
			default:
				v = tabledValue(written)
			}
			raw, err := ctyjson.Marshal(v, v.Type())
			if err != nil {
				t.Fatal(err)
			}
			inner := parsedJSON(t, []byte(fmt.Sprintf("{%q: %s}", s.Name, raw)))
			if err := fits(schema, in(s.Block, inner), "$"); err != nil {
				t.Errorf("%s of %q = %s: %v", s.Name, s.Block, written, err)
			}
		}
		if description, _ := s.schema()["description"].(string); len(description) < 5 || strings.ContainsAny(description, "`\n") {
			t.Errorf("%s of %q is described as %q", s.Name, s.Block, description)
		}
	}
	for _, wrong := range []string{
		`{"max_jobs": 0}`, `{"max_job": 1}`, `{"task": {"t": {}}}`, `{"task": {"t": {"command": "true"}}}`, `{"defaults": {"command": ["true"]}}`,
		`{"task": {"t": {"command": ["true"], "overflow": "drop"}}}`, `{"task": {"t": {"command": ["true"], "duration_buckets": ["1"]}}}`,
		`{"task": {"t": {"command": ["true"], "sandbox": {"private_tmp": "maybe"}}}}`, `{"timeout": "5s"}`,
	} {
		if err := fits(schema, parsedJSON(t, []byte(wrong)), "$"); err == nil {
			t.Errorf("the schema takes %s", wrong)
		}
	}
	folder(t, map[string]string{"tasks.d/a.hcl": `task "a" {
		command = ["true"]
		param "p" { default = "x" }
		sandbox {
			profile        = "strict"
			protect_system = true
		}
		webhook "w" { token = "0123456789abcdef" }
	}`})
	cfg, diags := Load(here())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	_, shown, err := cfg.Show("a", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := fits(schema, in("", map[string]any{"task": map[string]any{"a": any(parsedJSON(t, shown))}}), "$"); err != nil {
		t.Error(err)
	}
}
