package config

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/expression"
)

// readingHook is a task with a webhook that has lines, and parameters.
func readingHook(lines string) string {
	return `task "a" {
  command = ["true"]
  param "version" {}
  param "stage" { default = "prod" }
  webhook "w" {
    verify  = "github"
    secrets = ["s"]
` + lines + `
  }
}
`
}

const allValues = `    event = "x-${event}"
    ref   = body.branch
    id    = body.id
    refs  = ["main"]
    when  = (body.ref == "refs/heads/main" &&
             header("X-A") == "b")
    environment = { TAG = body.tag, "BOTH" = "${body.a}/${body.b}", FIXED = "x" }
    params = { version = body.version }`

func TestWebhookValues(t *testing.T) {
	cfg, diags := loadTasks(t, readingHook(allValues))
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	w := cfg.Tasks["a"].Webhooks[0]
	r := &webhook.Request{Body: []byte(`{"branch":"main","id":5,"ref":"refs/heads/main","tag":"v1","a":"1","b":"2"}`)}
	in := expression.NewInput(r, webhook.Delivery{Event: "push", Payload: r.Body}, w.Expressions()...)
	if got, err := w.When.Reason(in); got != `when: header("X-A") is missing (a.hcl:13)` || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, one := range []struct {
		e    *expression.Expression
		want string
	}{{w.Event, "x-push"}, {w.Ref, "main"}, {w.ID, "5"}, {w.Environment[0].Expression, "v1"}, {w.Environment[1].Expression, "1/2"}, {w.Environment[2].Expression, "x"}} {
		if got, err := one.e.Text(in); got != one.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", one.e, got, err, one.want)
		}
	}
	if _, err := w.Params[0].Text(in); err == nil || err.Error() != "params version: body.version is missing (a.hcl:15)" {
		t.Error(err)
	}
	if len(w.Expressions()) != 8 || !w.ID.OfBody() || w.Event.OfBody() {
		t.Error(w.Expressions())
	}
}

func TestWebhookValuesInJSON(t *testing.T) {
	folder(t, map[string]string{"tasks.d/a.hcl.json": `{"task":{"a":{"command":["true"],"param":{"version":{}},"webhook":{"w":{"verify":"github","secrets":["s"],
"when":"body.ref == \"refs/heads/main\"","event":"header(\"X-E\")","ref":"refs/heads/${body.branch}","id":"${body.id}",
"environment":{"TAG":"${body.tag}","TEXT":"body.tag","BOTH":"a \"q\" ${body.tag}","N":5},"params":{"version":"${body.version}"}}}}}}`})
	cfg, diags := Load(here())
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	w := cfg.Tasks["a"].Webhooks[0]
	r := &webhook.Request{Body: []byte(`{"branch":"main","id":5,"ref":"refs/heads/dev","tag":"v1"}`)}
	in := expression.NewInput(r, webhook.Delivery{Payload: r.Body}, w.Expressions()...)
	if got, err := w.When.Reason(in); got != `when: body.ref == "refs/heads/main" is false (a.hcl.json:2)` || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for i, want := range []string{"v1", "body.tag", `a "q" v1`, "5"} {
		if got, err := w.Environment[i].Text(in); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", w.Environment[i].Name, got, err, want)
		}
	}
	if got, err := w.Ref.Text(in); got != "refs/heads/main" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestShowExpressions: what is shown, in either syntax, is the same configuration again.
func TestShowExpressions(t *testing.T) {
	cfg, diags := loadTasks(t, readingHook(allValues+"\n    message = \"m\""))
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	text, object, err := cfg.Show("a", true)
	if err != nil {
		t.Fatal(err)
	}
	again, diags := loadTasks(t, text)
	if len(diags) != 0 {
		t.Fatalf("%v\n%s", diags, text)
	}
	inJSON, err := json.Marshal(map[string]any{"task": map[string]any{"a": object}})
	if err != nil {
		t.Fatal(err)
	}
	folder(t, map[string]string{"tasks.d/a.hcl.json": string(inJSON)})
	third, diags := Load(here())
	if len(diags) != 0 {
		t.Fatalf("%v\n%s", diags, inJSON)
	}
	for _, c := range []*Config{again, third} {
		shown, _, err := c.Show("a", true)
		if plain := strings.NewReplacer(" # default", ""); err != nil || plain.Replace(shown) != plain.Replace(text) {
			t.Errorf("%v\n%s\nwant\n%s", err, shown, text)
		}
	}
	for _, want := range []string{"    id = body.id\n", `TAG = body.tag`, `BOTH = "${body.a}/${body.b}"`, `params = { version = body.version }`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

func TestWebhookValuesRefused(t *testing.T) {
	for lines, want := range map[string]string{
		`when = boddy.ref == "x"`:                        "a.hcl:8:8: error: unknown name boddy",
		`when = event`:                                   "a.hcl:8:8: error: when must be true or false, not a string",
		`when = "refs/heads/${ref}"`:                     "when must be true or false, not a string",
		`when = body.ref = "x"`:                          "a.hcl:8",
		`when = file("/etc/shadow") == 1`:                "unknown function file",
		`when = "%{ if true }x%{ endif }"`:               `"%{"`,
		`events = ["${body.x}"]`:                         "unknown variable",
		`environment = { TAG = boddy.x }`:                "a.hcl:8:23: error: unknown name boddy",
		`environment = { TAG = [1] }`:                    "environment TAG must be text, not a list",
		`environment = { TAG = body.x, "TAG" = body.y }`: "environment has TAG twice",
		`environment = body`:                             "environment must be an object",
		`environment = { "a-b" = body.x }`:               `"a-b" is not the name of a variable`,
		`environment = { RTASK_X = body.x }`:             "names that begin with RTASK_ are reserved",
		`environment = { PATH = body.x }`:                "environment: PATH changes what programs do",
		`params = { versoin = body.x }`:                  `Did you mean "version"?`,
		`params = { other = body.x }`:                    `task "a" has no param "other"`,
		``:                                               `param "version" has no default, and params does not say it`,
		`event = body.x` + "\n" + `event = body.y`:       "event",
		`refs = ["main"]`:                                "not the full name of a branch or tag",
	} {
		_, diags := loadTasks(t, readingHook(lines))
		if !diags.HasErrors() || !strings.Contains(diags.Error(), want) {
			t.Errorf("%s: %v; want %q", lines, diags, want)
		}
	}
}

// TestSteeringNames has names that the documentation of programs gives a meaning that a stranger must not have a say in.
func TestSteeringNames(t *testing.T) {
	for _, name := range strings.Fields(`PATH LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT BASH_ENV ENV IFS PYTHONPATH PYTHONSTARTUP PYTHONHOME PYTHONINSPECT NODE_OPTIONS
		NODE_PATH GIT_SSH GIT_SSH_COMMAND GIT_CONFIG GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_GLOBAL GIT_EXEC_PATH GIT_ASKPASS GIT_PAGER GIT_EDITOR
		GIT_EXTERNAL_DIFF GIT_DIR GIT_WORK_TREE GIT_TRACE GIT_TEMPLATE_DIR GIT_PROXY_COMMAND PERL5LIB PERL5OPT PERL5DB RUBYOPT RUBYLIB JAVA_TOOL_OPTIONS _JAVA_OPTIONS
		JDK_JAVA_OPTIONS CLASSPATH PHPRC PHP_INI_SCAN_DIR LUA_INIT LUA_PATH SHELLOPTS BASHOPTS PS4 PROMPT_COMMAND CDPATH GLOBIGNORE ZDOTDIR HOME SHELL USER TMPDIR
		EDITOR VISUAL PAGER LESSOPEN LESSCLOSE BROWSER MAKEFLAGS CC http_proxy HTTPS_PROXY SSL_CERT_FILE OPENSSL_CONF CURL_HOME GCONV_PATH LOCPATH NLSPATH GLIBC_TUNABLES
		HOSTALIASES RES_OPTIONS TZ TERMINFO SSH_ASKPASS SSH_AUTH_SOCK RSYNC_RSH GOFLAGS GOTOOLCHAIN CARGO_HOME RUSTC_WRAPPER npm_config_script_shell AWS_CONFIG_FILE
		KUBECONFIG DOCKER_HOST ANSIBLE_CONFIG XDG_CONFIG_HOME DBUS_SESSION_BUS_ADDRESS NOTIFY_SOCKET LISTEN_FDS SYSTEMD_PAGER PGSERVICEFILE TAR_OPTIONS GREP_OPTIONS
		LESSHISTFILE PARALLEL PSQLRC MAILRC BC_ENV_ARGS RIPGREP_CONFIG_PATH FZF_DEFAULT_COMMAND KUBECTL_EXTERNAL_DIFF KUBERNETES_SERVICE_HOST GOCACHEPROG JAVACMD PYTEST_ADDOPTS
		TS_NODE_PROJECT DJANGO_SETTINGS_MODULE GUNICORN_CMD_ARGS CONFIG_SITE COR_PROFILER_PATH ASPNETCORE_HOSTINGSTARTUPASSEMBLIES MAGICK_CONFIGURE_PATH GS_OPTIONS GDK_PIXBUF_MODULE_FILE
		FFREPORT PASSWORD_STORE_DIR QEMU_LD_PREFIX R_PROFILE_USER HGMERGE SCRIPT_FILENAME QUERY_STRING CATALINA_OPTS KAFKA_JVM_PERFORMANCE_OPTS KAFKA_OPTS grpc_proxy GH_TOKEN
		SUDO_ASKPASS MAKESHELL HISTFILE`) {
		if !steers(name) {
			t.Errorf("%s may be set by a request", name)
		}
	}
	for _, name := range strings.Fields(`TAG COMMITTER BRANCH GIT_BRANCH GIT_COMMIT GIT_REF GITHUB_REPOSITORY GITHUB_REF GITLAB_PROJECT HOOK_NAME VERSION NODE_VERSION MESSAGE
		DEPLOY_ENV ENVIRONMENT URL GOAL EVENT REPO PUSHER IMAGE DOCKER_TAG PATHS USERNAME HOOK_PATH LOG_LEVEL title ACTION
		RELEASE REVISION HASH GROUP PARALLELISM ROLE HUGE`) {
		if steers(name) {
			t.Errorf("%s may not be set", name)
		}
	}
}

// TestExpressionsShowNoSecrets: a condition of a token URL may compare what only the sender knows.
func TestExpressionsShowNoSecrets(t *testing.T) {
	hook := func(lines string) string {
		return "task \"a\" {\n command = [\"true\"]\n webhook \"w\" {\n token = \"0123456789abcdef\"\n" + lines + "\n }\n}\n"
	}
	cfg, diags := loadTasks(t, hook(`when = header("X-Key") == "hush"`+"\n"+`environment = { A = body.key == "hush" }`))
	if len(diags) != 0 {
		t.Fatal(diags)
	}
	for _, secrets := range []bool{false, true} {
		text, object, err := cfg.Show("a", secrets)
		if err != nil || strings.Contains(text, "hush") != secrets || strings.Contains(string(object), "hush") != secrets || !strings.Contains(text, "when = header(") {
			t.Errorf("%v, %v: %s\n%s", secrets, err, text, object)
		}
	}
	for _, lines := range []string{`when = header("X-Key") == "hush" && boddy.x`, `when = header("X-Key") == "hush" && nothing("x")`, `when = "hush"`, `when = !"hush"`, `environment = { A = upper("hush", 1) }`} {
		if _, diags := loadTasks(t, hook(lines)); !diags.HasErrors() || strings.Contains(diags.Error(), "hush") {
			t.Errorf("%s: %v", lines, diags)
		}
	}
}
