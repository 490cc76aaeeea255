package config

import (
	"encoding/json"
	"strconv"
	"strings"

	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// object is an object of JSON.
type object = map[string]any

// JSONSchema is a JSON Schema (2020-12) of the files *.hcl.json: of rtask.hcl.json, those of tasks.d, and what Show returns
// below "task" and the task's name. Files may be written in more ways than it knows, such as a list of objects for a block.
func JSONSchema() ([]byte, error) {
	blocks := map[string]object{}
	for _, p := range newTables().places() {
		if len(p.settings) == 0 { // a file of tasks.d, which has tasks alone
			continue
		}
		properties := object{}
		for _, s := range p.settings {
			properties[s.Name] = s.schema()
		}
		blocks[p.block] = object{"type": "object", "properties": properties, "additionalProperties": false}
	}
	add := func(in, name string) { blocks[in]["properties"].(object)[name] = blocks[name] }
	addLabelled := func(in, name string) {
		blocks[in]["properties"].(object)[name] = object{"type": "object", "additionalProperties": blocks[name]}
	}
	for _, name := range []string{"limits", "sandbox", "pool", "retry"} {
		add("task", name)
		add("defaults", name)
	}
	addLabelled("task", "param")
	addLabelled("task", "webhook")
	for _, name := range []string{"schedule", "path"} {
		add("task", name)
	}
	for _, name := range []string{"argon2", "retention", "remote", "authority", "defaults"} {
		add("", name)
	}
	for _, name := range []string{"provider", "role"} {
		addLabelled("", name)
	}
	addLabelled("", "task")
	blocks["task"]["required"] = []string{"command"}
	blocks["provider"]["required"] = []string{"issuer"}
	blocks["role"]["required"] = []string{"methods"}
	top := blocks[""]
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "configuration of rtask in HCL's JSON syntax"
	b, err := json.MarshalIndent(top, "", "  ")
	return append(b, '\n'), err
}

// schema is the JSON Schema of a value.
func (s Setting) schema() object {
	summary, _, _ := strings.Cut(s.Doc, ". ")
	o := object{"description": strings.TrimRight(strings.ReplaceAll(summary, "`", ""), ".:")}
	if first, _, several := strings.Cut(s.Doc, "\n"); several && len(first) < len(summary) {
		o["description"] = strings.TrimRight(strings.ReplaceAll(first, "`", ""), ".:")
	}
	var types []string
	for word := range strings.SplitSeq(s.Type, " | ") {
		switch word {
		case "boolean", "string", "number", "object":
			types = append(types, word)
		case "expression":
			types = append(types, "string")
		case "object of expressions":
			types = append(types, "object")
			o["additionalProperties"] = object{"type": []string{"string", "number", "boolean"}}
		case "size", "duration":
			types = append(types, "string", "number")
		default: // a list
			types = append(types, "array")
			o["items"] = object{"type": map[bool]string{true: "number", false: "string"}[word == "list of numbers"]}
			if s.Block == "sandbox" {
				types = append(types, "string")
			}
		}
	}
	if types[0] == "number" { // which may stand in quotes, and "infinity" only there
		types = append(types, "string")
	}
	if o["type"] = any(types); len(types) == 1 {
		o["type"] = types[0]
	}
	if s.Type == "object" {
		o["additionalProperties"] = object{"type": "string"}
	}
	if len(s.Values) > 0 {
		var values []any
		for _, v := range s.Values {
			if b, err := strconv.ParseBool(v); err == nil {
				values = append(values, b)
			}
			values = append(values, v)
		}
		delete(o, "type")
		o["enum"] = values
	}
	for name, bound := range map[string]string{"minimum": s.Least, "maximum": s.Most} {
		if n, err := strconv.ParseInt(bound, 10, 64); err == nil {
			o[name] = n
		}
	}
	if s.Default != "" {
		v := tabledValue(s.Default)
		if raw, err := ctyjson.Marshal(v, v.Type()); err == nil {
			o["default"] = json.RawMessage(raw)
		}
	}
	return o
}
