package foreign

import (
	"fmt"
	"regexp"
	"strings"
)

// pattern returns a regular expression for the values of an argument's type, from end to end. It is "" if they may be anything.
func (in input) pattern() (string, error) {
	if custom, ok := strings.CutPrefix(in.kind, "regex:"); ok {
		if _, err := regexp.Compile(custom); err != nil {
			return "", fmt.Errorf("its regular expression cannot be used")
		}
		return custom, nil
	}
	switch in.kind {
	case "entity":
		return "", fmt.Errorf("its values are entities, of which rtask knows nothing")
	case "checklist":
		var quoted []string
		for _, choice := range in.choices {
			quoted = append(quoted, regexp.QuoteMeta(choice))
		}
		if len(quoted) == 0 {
			return "", fmt.Errorf("a checklist has no choices")
		}
		one := "(?:" + strings.Join(quoted, "|") + ")"
		return one + "(?:," + one + ")*", nil
	}
	if len(in.values()) > 0 {
		return "", nil
	}
	kind := in.kind
	if kind == "" {
		kind = "ascii"
	}
	pattern, ok := map[string]string{
		"ascii":                 `[a-zA-Z0-9]+`,
		"ascii_identifier":      `[a-zA-Z0-9._-]+`,
		"ascii_sentence":        `[a-zA-Z0-9._, -]+`,
		"int":                   `[0-9]+`,
		"shell_safe_identifier": `[a-zA-Z0-9@._+-]+`,
		"unicode_identifier":    `[a-zA-Z0-9._-]+`, // OliveTin's takes letters of ASCII only, whatever its name says
		// Of these, OliveTin takes more.
		"email":    `[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*`,
		"url":      `https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/(?:[A-Za-z0-9._~:/?#@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?`,
		"datetime": `[0-9]{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]`,
		// These may be anything there, too.
		"password":                  "",
		"raw_string_multiline":      "",
		"very_dangerous_raw_string": "",
	}[kind]
	if !ok {
		return "", fmt.Errorf("OliveTin knows no type %q", kind)
	}
	return pattern, nil
}

// shellSafe returns why OliveTin does not let a shell read an argument, or nil.
func (in input) shellSafe() error {
	switch {
	case strings.HasPrefix(in.kind, "regex:"), in.kind == "url", in.kind == "email", in.kind == "raw_string_multiline", in.kind == "very_dangerous_raw_string",
		in.kind == "password", in.kind == "checkbox" && len(in.choices) == 0:
		return fmt.Errorf("OliveTin lets no shell read an argument of type %s. Give it to exec", in.kind)
	}
	return nil
}
