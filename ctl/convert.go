package ctl

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/config/foreign"
	"github.com/rtask/rtask/daemon/config/oldtoml"
	"github.com/rtask/rtask/sandbox/wording"
)

// maxConfig is the largest configuration file that rtaskctl takes, in bytes.
const maxConfig = 1 << 20

func (a *app) convertCommand() *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "print the configuration of another program as a file of tasks.d", UsageText: "rtaskctl config convert FILE",
		Description: "FILE is a list of hooks of adnanh/webhook (hooks.json or hooks.yaml), a config.yaml of OliveTin,\n" +
			"or a config.toml. The name's end says whether it is TOML. No engine is needed.\n" +
			"What rtask has nothing for is a comment at its place and a line on standard error, and the exit status is 1.\n" +
			"No rule becomes weaker.\n" +
			"A relative command of a config.toml without a workdir is looked up in the folder of FILE.",
		Action: func(c *cli.Context) error {
			path, err := oneArg(c, "FILE")
			if err != nil {
				return err
			}
			data, err := readConfig(path)
			if err != nil {
				return err
			}
			if slices.Contains([]string{".json", ".yaml", ".yml", ".tmpl"}, filepath.Ext(path)) {
				return a.convertForeign(path, data)
			}
			return a.convertTOML(path, data)
		},
	}
}

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot convert it: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	_ = f.Close() // it was only read
	if err != nil {
		return nil, fmt.Errorf("cannot convert it: %w", err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s is longer than 1 MiB", path)
	}
	return data, nil
}

func (a *app) convertTOML(path string, data []byte) error {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("cannot find its folder: %w", err)
	}
	if err := a.refuseUnusable(path, data); err != nil {
		return err
	}
	hcl, err := oldtoml.Convert(data, dir)
	if err != nil {
		return fmt.Errorf("%s:%w", path, err)
	}
	return a.print(string(hcl.Text))
}

// refuseUnusable returns an error, and prints why, for a config.toml whose tasks rtask would refuse.
func (a *app) refuseUnusable(path string, data []byte) error {
	name := path
	if !strings.HasSuffix(name, ".toml") {
		name += ".toml" // which is what says that it is one
	}
	_, found := config.LoadFiles([]config.File{{Path: name, Data: data}}, config.Options{Part: true})
	if !found.HasErrors() {
		return nil
	}
	for _, d := range found {
		d.File = path
		a.say("%s", lines(d.String()))
	}
	return errors.New("cannot convert it: rtask would refuse its tasks")
}

// convertForeign prints what becomes of another program's configuration, and says what does not.
func (a *app) convertForeign(path string, data []byte) error {
	result, err := foreign.Convert(data, foreignOptions(path))
	if err != nil {
		return fmt.Errorf("%s:%w", path, err)
	}
	cfg, err := loadTasks(result.Text)
	if err != nil {
		return fmt.Errorf("cannot convert it: %w", err)
	}
	if err := a.print(string(result.Text)); err != nil {
		return err
	}
	for _, l := range result.Lost {
		a.say("%s:%d: %s", path, l.Line, l.Text)
	}
	for _, h := range result.Hooks {
		a.say("%s", moved(cfg, h))
	}
	if slices.ContainsFunc(result.Hooks, func(h foreign.Hook) bool { return !webhookOf(cfg, h).Scheme.Kind.Signed() }) {
		a.say("A ping of GitHub to a secret URL is answered and starts nothing.")
	}
	if len(result.Hooks) > 0 {
		a.say("A request that a rule refuses is answered with 200 and {\"status\":\"ignored\"}, one with a wrong signature with 401.")
		a.say("A body is read as JSON or a form by what is in it, whatever its Content-Type is.")
	}
	a.say("Tasks run as users of their own, in a sandbox: see user and SANDBOX in rtask.hcl(5).")
	if len(result.Lost) > 0 {
		return exitStatus(exitError)
	}
	return nil
}

// foreignOptions are what a conversion asks rtask about its tasks.
func foreignOptions(path string) foreign.Options {
	return foreign.Options{
		Name: filepath.Base(path),
		Check: func(text []byte) error {
			_, err := loadTasks(text)
			return err
		},
		Token: func() string {
			const length = 20 // bytes
			return hex.EncodeToString(randomBytes(length))
		},
		Variable: func(name string) error {
			probe := fmt.Sprintf("task \"a\" {\n  command = [\"/bin/true\"]\n  webhook \"a\" {\n    token = \"0123456789abcdef\"\n    environment = { %s = method }\n  }\n}\n", name)
			if _, err := loadTasks([]byte(probe)); err != nil {
				return errors.New(strings.TrimPrefix(err.Error(), "environment: "))
			}
			return nil
		},
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // which never fails
	return b
}

// loadTasks returns what a file of tasks has, or the first thing that is wrong with it.
func loadTasks(text []byte) (*config.Config, error) {
	cfg, found := config.LoadFiles([]config.File{{Path: "converted.hcl", Data: text}}, config.Options{Part: true})
	for _, d := range found {
		if d.Severity == config.SeverityError {
			return nil, errors.New(d.Summary)
		}
	}
	return cfg, nil
}

// webhookOf returns the webhook of a hook. Each hook that a conversion returns has one.
func webhookOf(cfg *config.Config, h foreign.Hook) *config.Webhook {
	all := cfg.Tasks[h.Task].Webhooks
	return all[slices.IndexFunc(all, func(w *config.Webhook) bool { return w.Name == h.Webhook })]
}

// moved says what becomes of the URL of a hook. One that is a secret stays where it is.
func moved(cfg *config.Config, h foreign.Hook) string {
	h.URL = wording.Escape(h.URL, "") // one line, whatever is in it
	if w := webhookOf(cfg, h); w.Scheme.Kind.Signed() {
		return fmt.Sprintf("%s is now /wh/%s: change it at the sender", h.URL, w.Hash(nil))
	}
	return fmt.Sprintf("%s has a secret URL now, which rtaskctl webhook list shows as %s/%s: change it at the sender", h.URL, h.Task, h.Webhook)
}
