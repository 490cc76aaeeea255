package config

import (
	"strings"
	"testing"
)

// No finding shows a secret, whatever it is about.
func TestFindingsShowNoSecrets(t *testing.T) {
	const secret = "hunter2-hunter2"
	for name, text := range map[string]string{
		"list.hcl":     "task \"a\" {\n  command = [\"x\"]\n  webhook \"w\" {\n    verify = \"github\"\n    secrets = [\"" + secret + "\"]\n  }\n}\n",
		"lines.hcl":    "task \"a\" {\n  command = [\"x\"]\n  webhook \"w\" {\n    verify = \"github\"\n    secrets = [\n      \"" + secret + "\", 1,\n      \"" + secret + "2\"\n    ]\n  }\n}\n",
		"type.hcl":     "task \"a\" {\n  command = [\"x\"]\n  webhook \"w\" {\n    verify = \"github\"\n    secrets = \"" + secret + "\"\n  }\n}\n",
		"open.hcl":     "task \"a\" {\n  command = [\"x\"]\n  webhook \"w\" {\n    token = \"" + secret + "\n  }\n}\n",
		"twice.hcl":    "task \"a\" {\n  command = [\"x\"]\n  webhook \"w\" {\n    token = \"" + secret + "\"\n    token = \"" + secret + "\"\n  }\n}\n",
		"one.hcl.json": "{\"task\": {\"a\": {\"command\": [\"x\"], \"webhook\": {\"w\": {\"nothing\": 1, \"token\": \"" + secret + "\"}}}}}\n",
		"in.toml":      "[tasks.a]\ncommand = ['x']\nwebhookSecrets = { w = '" + secret + "/' }\n",
		"table.toml":   "[tasks.a]\ncommand = ['x']\n[tasks.a.webhookSecrets]\nw = '" + secret + "/'\n",
	} {
		folder(t, map[string]string{"tasks.d/" + name: text})
		opts := here()
		opts.Exposed = func(string) bool { return true }
		_, diags := Load(opts)
		if len(diags) == 0 {
			t.Errorf("%s: no finding", name)
		}
		if got := diags.Error(); strings.Contains(got, "hunter2") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
