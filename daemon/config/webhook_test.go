package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/sandbox/spec"
)

// loadTasks loads one file of tasks, with the real file system behind secret files.
func loadTasks(t *testing.T, hcl string) (*Config, Diagnostics) {
	t.Helper()
	folder(t, map[string]string{"tasks.d/a.hcl": hcl})
	opts := here()
	opts.ReadSecret, opts.CredentialsDir = SecretReader(os.Getuid()), filepath.Join(t.TempDir(), "none")
	return Load(opts)
}

func writeSecret(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWebhookDefaults(t *testing.T) {
	cfg, diags := loadTasks(t, `
task "a" {
  command = ["true"]
  webhook "gh" {
    verify  = "github"
    secrets = ["old", "new"]
  }
  webhook "chat" { token = "0123456789abcdef" }
}
task "b" {
  command        = ["true"]
  max_concurrent = 0
  overflow       = "reject"
  webhook "x" {
    verify          = "hmac-sha256"
    secrets         = ["s"]
    header          = "X-Sig"
    encoding        = "base64"
    events          = ["a", "b"]
    refs            = ["refs/heads/*"]
    respond         = "result"
    replay          = "refuse"
    max_input_bytes = "2K"
  }
}
task "c" { command = ["true"] }
`)
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	a, b, c := cfg.Tasks["a"], cfg.Tasks["b"], cfg.Tasks["c"]
	if a.MaxConcurrent != 1 || a.Overflow != spec.Coalesce || c.MaxConcurrent != 0 || c.Overflow != spec.Reject || b.MaxConcurrent != 0 || b.Overflow != spec.Reject {
		t.Errorf("%+v %+v %+v", a, b, c)
	}
	gh, chat, x := a.Webhooks[0], a.Webhooks[1], b.Webhooks[0]
	if gh.MaxInputBytes != 25<<20 || gh.Respond != RespondAccepted || gh.RefuseRepeats || gh.Task != "a" || gh.Name != "gh" {
		t.Errorf("%+v", gh)
	}
	if chat.MaxInputBytes != 1<<20 || chat.Scheme.Kind != webhook.Token {
		t.Errorf("%+v", chat)
	}
	if want := (webhook.Scheme{Kind: webhook.HMACSHA256, Header: "X-Sig", Encoding: webhook.Base64}); x.Scheme != want || x.Respond != RespondResult || !x.RefuseRepeats ||
		x.MaxInputBytes != 2<<10 || len(x.Events) != 2 || len(x.Refs) != 1 {
		t.Errorf("%+v", x)
	}
	if got, err := gh.Secrets(nil); err != nil || strings.Join(got, " ") != "old new" {
		t.Errorf("%q, %v", got, err)
	}
	// What defaults say goes before what a webhook brings.
	folder(t, map[string]string{
		"rtask.hcl":     "public_url = \"https://ci.example.com/x/\"\ndefaults {\n  max_concurrent = 3\n}\n",
		"tasks.d/a.hcl": "task \"a\" {\n  command = [\"true\"]\n  webhook \"x\" {\n    token = \"0123456789abcdef\"\n  }\n}\n",
	})
	cfg, diags = Load(here())
	if len(diags) != 0 || cfg.Tasks["a"].MaxConcurrent != 3 || cfg.Tasks["a"].Overflow != spec.Coalesce || cfg.PublicURL != "https://ci.example.com/x" {
		t.Errorf("%+v, %v", cfg, diags)
	}
	// A slot of a task is as good as before when a secret of its webhook has changed.
	if one, _ := Load(here()); one.Tasks["a"].Hash != cfg.Tasks["a"].Hash {
		t.Error("the hash changes by itself")
	}
}

// A webhook is found by its token alone, and a signed one by what follows from its names.
func TestWebhookURL(t *testing.T) {
	sum := sha256.Sum256([]byte("hashed-token"))
	file := writeSecret(t, "token", "token-in-a-file-0123\r\n", 0o600)
	text := fmt.Sprintf(`
task "a" {
  command = ["true"]
  webhook "plain"  { token = "plain-token-0123" }
  webhook "hashed" { token_hash = "sha256:%s" }
  webhook "file"   { token_file = %q }
  webhook "signed" {
    verify  = "github"
    secrets = ["%%s"]
  }
}
`, strings.ToUpper(hex.EncodeToString(sum[:])), file)
	cfg, diags := loadTasks(t, fmt.Sprintf(text, "one"))
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	signed := cfg.Tasks["a"].Webhooks[3].Hash(nil)
	if len(signed) != 26 {
		t.Errorf("%q", signed)
	}
	for hash, want := range map[string]string{
		"plain-token-0123": "plain", "hashed-token": "hashed", "token-in-a-file-0123": "file", signed: "signed",
		// Whoever can read the configuration does not know the token.
		"sha256:" + hex.EncodeToString(sum[:]): "", hex.EncodeToString(sum[:]): "",
		"": "", "plain": "", "signed": "", "plain-token-012": "", "plain-token-01234": "", "PLAIN-TOKEN-0123": "", strings.ToUpper(signed): "", "one": "",
	} {
		got := ""
		if _, w := cfg.Webhook(hash, nil); w != nil {
			got = w.Name
		}
		if got != want {
			t.Errorf("%q is webhook %q, want %q", hash, got, want)
		}
	}
	for i, want := range []string{"plain-token-0123", "sha256:" + hex.EncodeToString(sum[:]), "token-in-a-file-0123", signed} {
		if got := cfg.Tasks["a"].Webhooks[i].Hash(nil); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	other, _ := loadTasks(t, fmt.Sprintf(text, "two"))
	if got := other.Tasks["a"].Webhooks[3].Hash(nil); got != signed {
		t.Errorf("with another secret it is %q instead of %q", got, signed)
	}
}

// A secret file that is missing is a warning, and is taken once it is there; one that others can write is an error.
func TestSecretFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "late")
	text := fmt.Sprintf(`
task "a" {
  command = ["true"]
  webhook "gh" {
    verify       = "github"
    secret_files = [%q]
    credentials  = ["nothere"]
  }
}
task "b" {
  command = ["true"]
  webhook "chat" {
    token_file = %q
  }
}
`, path, path)
	cfg, diags := loadTasks(t, text)
	if cfg == nil || len(diags) != 3 || !strings.Contains(diags.Error(), path+" is not there") || !strings.Contains(diags.Error(), `credential "nothere" is not there`) {
		t.Fatal(diags)
	}
	read := SecretReader(os.Getuid())
	gh, chat := cfg.Tasks["a"].Webhooks[0], cfg.Tasks["b"].Webhooks[0]
	if _, err := gh.Secrets(read); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if got := chat.Hash(read); got != "" {
		t.Errorf("%q", got)
	}
	if _, w := cfg.Webhook("", read); w != nil {
		t.Error("a token that is missing is the empty one")
	}
	for content, ok := range map[string]bool{"": false, "\n": false, "two\nlines-0123456789\n": false, "late-secret-0123\n": true} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := gh.Secrets(read)
		if (err == nil) != ok || ok && got[0] != "late-secret-0123" {
			t.Errorf("%q: %q, %v", content, got, err)
		}
		if hash := chat.Hash(read); (hash == "late-secret-0123") != ok {
			t.Errorf("%q: %q", content, hash)
		}
		_, diags := loadTasks(t, text)
		if diags.HasErrors() == ok {
			t.Errorf("%q: %v", content, diags)
		}
		if strings.Contains(diags.Error(), "lines-0123456789") {
			t.Errorf("the secret is in %v", diags)
		}
	}
	if err := os.Chmod(path, 0o622); err != nil {
		t.Fatal(err)
	}
	if _, err := gh.Secrets(read); err == nil {
		t.Error("a file that others can write is taken")
	}
	if _, diags := loadTasks(t, text); !diags.HasErrors() || !strings.Contains(diags.Error(), "chmod go-w "+path) {
		t.Error(diags)
	}
}

// What no editor shows around a secret is no part of it in a file, and an error where it stands in the configuration.
func TestUnseenInSecrets(t *testing.T) {
	read := SecretReader(os.Getuid())
	for content, want := range map[string]string{
		"\ufeffs3cret\r\n": "s3cret", " s3cret \n": "s3cret", "\ts3cret\u00a0": "s3cret", "two words\n": "two words",
		"\x01\x02 \n": "\x01\x02 ", " \xff\xfe\x80": " \xff\xfe\x80", // any bytes are what they are
		"\ufeff": "", " \n": "", "\xff\xfes\x003\x00": "", "\xfe\xff\x00s": "", "\ufeffa\nb": "",
	} {
		got, err := read(writeSecret(t, "s", content, 0o600))
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
	for _, s := range []string{"s3cret ", " s3cret", "\\ufeffs3cret", "s3cret\\n"} {
		for _, line := range []string{fmt.Sprintf("verify = \"github\"\n secrets = [\"%s\"]", s), fmt.Sprintf("token = \"%s\"", s)} {
			_, diags := loadTasks(t, "task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n"+line+"\n }\n}\n")
			if !diags.HasErrors() || !strings.Contains(diags.Error(), "around it") || strings.Contains(diags.Error(), "s3cret has") {
				t.Errorf("%s: %v", line, diags)
			}
		}
	}
}

// No diagnostic has a line with a secret in it: it goes to the journal.
func TestDiagnosticsHideSecrets(t *testing.T) {
	for _, body := range []string{
		"verify = \"github\"\n secrets = [\"hush-hush \"]", "verify = \"github\"\n secrets = [\n\"good\",\n\" hush-hush\",\n]", "token = \"hush-hush \"", "token = \"hush-hush\"; nonsense = 1",
		"verify = \"meta\"\n secrets = [\"s\"]\n verify_token = \"hush-hush \"", "verify = \"github\"\n secrets = [\"s\"]\n verify_token = \"hush-hush\"",
		"verify = \"github\"\n token = \"hush-hush\"", "verify = \"token\"\n secrets = [\"hush-hush\"]", "token = \"hush hush-hush\"",
	} {
		_, diags := loadTasks(t, "task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n"+strings.ReplaceAll(body, ";", "\n")+"\n }\n}\n")
		if len(diags) == 0 || strings.Contains(diags.Error(), "hush-hush") {
			t.Errorf("%s: %v", body, diags)
		}
	}
	folder(t, map[string]string{"tasks.d/a.hcl": "task \"a\" {\n  command = [\"true\"]\n  webhook \"x\" {\n    token = \"hush-hush-hush-hush\"\n  }\n}\n"})
	opts := here()
	opts.Exposed = func(string) bool { return true }
	_, diags := Load(opts)
	if !strings.Contains(diags.Error(), "can read the secret") || strings.Contains(diags.Error(), "hush-hush") {
		t.Errorf("%v", diags)
	}
}

// A ref may be a pattern over several parts; a sender that has none cannot be held to one.
func TestRefs(t *testing.T) {
	cfg, diags := loadTasks(t, `
task "a" {
  command = ["true"]
  webhook "w" {
    verify    = "github"
    secrets   = ["s3cret"]
    refs      = ["refs/heads/**", "refs/tags/v*"]
    deletions = true
  }
}
`)
	if len(diags) != 0 || !cfg.Tasks["a"].Webhooks[0].Deletions {
		t.Errorf("%v", diags)
	}
	for _, kind := range []string{"slack", "stripe"} {
		_, diags := loadTasks(t, fmt.Sprintf("task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n verify = %q\n secrets = [\"s3cret\"]\n refs = [\"refs/heads/main\"]\n }\n}\n", kind))
		if !strings.Contains(diags.Error(), "refs means nothing with verify") {
			t.Errorf("%s: %v", kind, diags)
		}
	}
}

// Only who administers sees secrets.
func TestShowHidesSecrets(t *testing.T) {
	cfg, diags := loadTasks(t, `
task "a" {
  command = ["true"]
  webhook "gh" {
    verify  = "github"
    secrets = ["hush-hush"]
  }
  webhook "chat" { token = "0123456789abcdef" }
  webhook "meta" {
    verify       = "meta"
    secrets      = ["s3cret"]
    verify_token = "hush-hush"
  }
  webhook "stripe" {
    verify  = "stripe"
    secrets = ["s3cret"]
  }
}
`)
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	for _, secrets := range []bool{true, false} {
		text, object, err := cfg.Show("a", secrets)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"hush-hush", "0123456789abcdef"} {
			if strings.Contains(text, s) != secrets || strings.Contains(string(object), s) != secrets {
				t.Errorf("%v: %s\n%s", secrets, text, object)
			}
		}
		if !strings.Contains(text, "\n  webhook \"gh\" {\n") || !strings.Contains(text, "    respond = \"accepted\" # default\n") ||
			!strings.Contains(text, "  max_concurrent = 1\n") || !strings.Contains(string(object), `"webhook":{"chat":{`) {
			t.Errorf("%s\n%s", text, object)
		}
	}
	// What is shown can be loaded.
	text, _, err := cfg.Show("a", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, diags := loadTasks(t, text); len(diags) != 0 {
		t.Errorf("%v\n%s", diags, text)
	}
}

// hmacHook is a task with a webhook that verifies what is named.
func hmacHook(lines string) string {
	return "task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n verify = \"hmac\"\n secrets = [\"s3cret\"]\n header = \"X-Sum\"\n" + lines + "\n }\n}\n"
}

func TestHMAC(t *testing.T) {
	text := hmacHook("prefix = \"v9=\"\n hash = \"sha512\"\n encoding = \"base64\"\n signed = \"v9:{timestamp}:{body}\"\n timestamp = header(\"X-Time\")")
	cfg, diags := loadTasks(t, text)
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	s := cfg.Tasks["a"].Webhooks[0].Scheme
	if s.Prefix != "v9=" || s.Hash != webhook.SHA512 || s.Encoding != webhook.Base64 || s.Signed != "v9:{timestamp}:{body}" || s.Time.String() != `header("X-Time")` || !s.Fresh() {
		t.Errorf("%+v", s)
	}
	if shown, _, err := cfg.Show("a", true); err != nil || !strings.Contains(shown, `timestamp = header("X-Time")`+"\n") {
		t.Errorf("%v\n%s", err, shown)
	}
	cfg, diags = loadTasks(t, hmacHook("timestamp = body.meta.sent-at"))
	if len(diags) != 0 || cfg.Tasks["a"].Webhooks[0].Scheme.Time.String() != "body.meta.sent-at" || cfg.Tasks["a"].Webhooks[0].Scheme.Time.Unit != webhook.SecondsOrMilliseconds {
		t.Errorf("%v", diags)
	}
	cfg, diags = loadTasks(t, hmacHook("signed = \"{id}.{body}\"\n id = header(\"X-Delivery\")"))
	if len(diags) != 0 || cfg.Tasks["a"].Webhooks[0].Scheme.ID.String() != `header("X-Delivery")` || !cfg.Tasks["a"].Webhooks[0].Scheme.Fresh() {
		t.Errorf("%v", diags)
	}
	cfg, diags = loadTasks(t, hmacHook(""))
	if len(diags) != 0 || cfg.Tasks["a"].Webhooks[0].Scheme.Fresh() {
		t.Errorf("%v", diags)
	}
	// In HCL's JSON syntax an expression is a string.
	folder(t, map[string]string{"tasks.d/a.hcl.json": `{"task":{"a":{"command":["true"],"webhook":{"w":{"verify":"hmac","secrets":["s"],"header":"X-Sum",` +
		`"signed":"{timestamp}{body}","timestamp":"header(\"X-Time\")"}}}}}`})
	cfg, diags = Load(here())
	if len(diags) != 0 || cfg.Tasks["a"].Webhooks[0].Scheme.Time.Unit != webhook.Seconds {
		t.Fatalf("%v", diags)
	}
	shown, object, err := cfg.Show("a", true)
	if err != nil || !strings.Contains(shown, `timestamp = header("X-Time")`+"\n") {
		t.Errorf("%v\n%s", err, shown)
	}
	folder(t, map[string]string{"tasks.d/a.hcl.json": `{"task":{"a":` + string(object) + `}}`})
	if cfg, diags = Load(here()); len(diags) != 0 || cfg.Tasks["a"].Webhooks[0].Scheme.Time.String() != `header("X-Time")` {
		t.Errorf("%v\n%s", diags, object)
	}
	for lines, want := range map[string]string{
		`hash = "md5"`: "hash", `signed = "{timestamp}.{body}"`: "nothing says where the {timestamp} stands", `signed = "{timestamp}"`: "leaves the body out",
		`timestamp = header("X-Time")`: "so anybody could change it", `timestamp = "X-Time"`: "neither a header nor a name in the body",
		`timestamp = query.t`: "neither a header", `timestamp = header(body.x)`: "timestamp", `timestamp = header("a b")`: "cannot be the name of a header",
		`timestamp = header("A", "B")`: "header takes the name of a header", `timestamp = lower(body.t)`: "neither a header", `timestamp = body`: "neither a header", `timestamp = body[0]`: "only names",
		`signed = "{id}.{body}"`: "nothing says where the {id} stands", `events = ["push"]`: "nothing says where the event stands",
		"signed = \"{id}.{body}\"\n id = \"x${body.a}\"": "neither a header nor a name in the body",
		`refs = ["refs/heads/main"]`:                     "nothing says where the ref stands", `prefix = ""`: "prefix",
	} {
		if _, diags := loadTasks(t, hmacHook(lines)); !strings.Contains(diags.Error(), want) {
			t.Errorf("%s: %v, want %q", lines, diags, want)
		}
	}
	for _, line := range []string{`hash = "sha1"`, `prefix = "sha256="`, `signed = "{body}"`, `timestamp = header("X")`} {
		_, diags := loadTasks(t, strings.Replace(hmacHook(line), `"hmac"`, `"github"`, 1))
		if !strings.Contains(diags.Error(), `means nothing with verify = "github"`) {
			t.Errorf("%s: %v", line, diags)
		}
	}
}

// What a sender does not say is an error, and no filter that nothing passes.
func TestSenders(t *testing.T) {
	hook := func(kind webhook.Kind, lines string) string {
		secret := "secrets = [\"s3cret\"]"
		if !kind.Signed() {
			secret = "token = \"0123456789abcdef\""
		}
		return fmt.Sprintf("task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n verify = %q\n %s\n %s\n }\n}\n", kind, secret, lines)
	}
	for _, c := range []struct {
		kind  webhook.Kind
		lines string
		want  string
	}{
		{webhook.Bitbucket, `refs = ["refs/heads/main"]`, ""}, {webhook.AzureDevOps, `events = ["git.push"]`, ""}, {webhook.PagerDuty, `refs = ["refs/heads/main"]`, "refs means nothing"},
		{webhook.Dropbox, `events = ["x"]`, "events means nothing"}, {webhook.DockerHub, `events = ["push"]`, "events means nothing"}, {webhook.Twilio, `events = ["x"]`, "events means nothing"},
		{webhook.DockerHub, "", ""}, {webhook.DockerHub, `secrets = ["s3cret"]`, "secrets means nothing"}, {webhook.Discord, "", "64 digits of hex"},
		{webhook.Meta, `verify_token = "x"`, ""}, {webhook.Dropbox, `verify_token = "x"`, "verify_token means nothing"}, {webhook.Grafana, `timestamp = header("X-Time")`, ""},
		{webhook.Grafana, "timestamp = body.time", "is in a header"}, {webhook.Linear, `timestamp = header("X-Time")`, "timestamp means nothing"},
		{webhook.Zoom, `replay = "run"`, "a time is signed"}, {webhook.Twilio, `replay = "refuse"`, ""}, {webhook.Linear, `methods = ["GET"]`, "GET means nothing"},
	} {
		_, diags := loadTasks(t, hook(c.kind, c.lines))
		if c.want == "" && len(diags) != 0 || !strings.Contains(diags.Error(), c.want) {
			t.Errorf("%s, %s: %v, want %q", c.kind, c.lines, diags, c.want)
		}
	}
	// What signs never stands for the token, which comes in a URL.
	cfg, diags := loadTasks(t, hook(webhook.Meta, ""))
	if diags.HasErrors() || len(diags) != 1 || !strings.Contains(diags.Error(), `webhook "w" has no verify_token`) || cfg.Tasks["a"].Webhooks[0].VerifyToken != "" {
		t.Errorf("%v", diags)
	}
}

// A finding shows no secret, wherever in its line it is.
func TestSecretLinesHidden(t *testing.T) {
	const secret = "0123456789abcdefsecret"
	hook := func(name, lines string) string {
		return fmt.Sprintf(" webhook %q { %s }\n", name, lines)
	}
	task := func(lines string) string { return "task \"a\" {\n command = [\"true\"]\n" + lines + "}\n" }
	token := "token = \"" + secret + "\""
	for file, text := range map[string]string{
		"name.hcl": task(hook("No Name", token)), "twice.hcl": task(hook("w", "\n"+token+"\n") + hook("w", token)), "same.hcl": task(hook("w", "\n"+token+"\n") + hook("x", token)),
		"param.hcl":     task(" param \"p\" {}\n" + hook("w", token)),
		"params.hcl":    task(hook("w", "\n"+token+"\nparams = { none = query.key == \""+secret+"\" ? \"a\" : \"b\" }\n")),
		"dockerhub.hcl": task(hook("w", "\nverify = \"dockerhub\"\n"+token+"\nwhen = query.key == \""+secret+"\" && none\n")),
		"line.hcl.json": `{"task":{"a":{"command":["true"],"none":1,"webhook":{"w":{"token":"` + secret + `"}}}}}`,
	} {
		folder(t, map[string]string{"tasks.d/" + file: text})
		_, diags := Load(here())
		if !diags.HasErrors() || strings.Contains(fmt.Sprintf("%+v", diags), secret) {
			t.Errorf("%s: %+v", file, diags)
		}
	}
}
