package config

import (
	"regexp"
	"strings"
)

// secretSetting finds the name of a setting whose value is a secret, in each of the languages of configuration files.
var secretSetting = regexp.MustCompile(`\b(secrets|token|verify_token|webhookSecrets)\b["']?\s*[=:]|\[\s*tasks\..*\bwebhookSecrets\b.*\]`)

// hideSecretLines takes secrets out of the lines that findings show: those go to the journal and to terminals.
func hideSecretLines(diags Diagnostics, files []File) {
	masks := map[string]map[int]string{}
	for i, d := range diags {
		if d.Line == 0 || d.Source == "" {
			continue
		}
		mask, ok := masks[d.File]
		if !ok {
			for _, f := range files {
				if f.Path == d.File {
					mask = secretLines(string(f.Data))
				}
			}
			masks[d.File] = mask
		}
		if text, ok := mask[d.Line]; ok {
			diags[i].Source = text
		}
	}
}

// secretLines returns what may be shown of the lines with secrets in them, by their numbers. A value goes on until its brackets are
// closed; a table of TOML until the next one.
func secretLines(text string) map[int]string {
	mask := map[int]string{}
	depth, table := 0, false
	for i, line := range strings.Split(text, "\n") {
		shown, rest := "…", line
		at := secretSetting.FindStringIndex(line)
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "["):
			if table = at != nil; depth == 0 {
				continue // the head of a table says no secret
			}
		case at != nil && depth == 0:
			shown, rest = line[:at[1]]+" …", line[at[1]:]
		case depth == 0 && !table:
			continue
		}
		mask[i+1] = shown
		if depth += strings.Count(rest, "[") + strings.Count(rest, "{") - strings.Count(rest, "]") - strings.Count(rest, "}"); depth < 0 {
			depth = 0
		}
	}
	return mask
}
