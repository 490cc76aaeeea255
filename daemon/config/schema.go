package config

// Setting is one NAME = VALUE that a configuration may have.
type Setting struct {
	// Block is the block that it stands in: argon2, retention, defaults, task, limits, sandbox, pool, param, webhook, or "" for
	// rtask.hcl itself. What stands in limits, sandbox and pool may stand in these blocks of defaults, too.
	Block string
	// Name is its name, and Example a value as it is written in a file.
	Name, Example string
	// Doc says what it means.
	Doc string
	// Directive is the systemd directive of the same meaning, "" if none.
	Directive string
}

// Settings returns every setting there is, in the order of the tables that files are decoded with.
func Settings() []Setting {
	var all []Setting
	all = append(all, settingsIn("", rootScope())...)
	all = append(all, settingsIn("argon2", argon2Scope())...)
	all = append(all, settingsIn("retention", retentionScope())...)
	all = append(all, settingsIn("defaults", defaultsScope())...)
	all = append(all, settingsIn("task", taskScope())...)
	all = append(all, settingsIn("limits", limitsScope())...)
	all = append(all, settingsIn("sandbox", sandboxScope())...)
	all = append(all, settingsIn("pool", poolScope())...)
	all = append(all, settingsIn("param", paramScope())...)
	all = append(all, settingsIn("webhook", webhookScope())...)
	return all
}

func settingsIn[T any](block string, s scope[T]) []Setting {
	all := make([]Setting, len(s.attributes))
	for i, a := range s.attributes {
		all[i] = Setting{Block: block, Name: a.name, Example: a.example, Doc: a.doc, Directive: a.directive}
	}
	return all
}
