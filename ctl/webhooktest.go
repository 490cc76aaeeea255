package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/view"
	"github.com/rtask/rtask/sandbox/wording"
)

// webhookTestJSON is what webhook test found.
type webhookTestJSON struct {
	view.Webhook
	Decision    string       `json:"decision"`
	Kind        string       `json:"kind,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Event       string       `json:"event,omitempty"`
	Ref         string       `json:"ref,omitempty"`
	When        []partJSON   `json:"when,omitempty"`
	Environment []string     `json:"environment,omitempty"`
	Job         *view.Job    `json:"job,omitempty"`
	Request     *requestJSON `json:"request,omitempty"`
}

// partJSON is a part of a webhook's condition.
type partJSON struct {
	Text    string `json:"text"`
	File    string `json:"file"`
	Line    int32  `json:"line"`
	Result  string `json:"result"`
	Problem string `json:"problem,omitempty"`
	Value   string `json:"value,omitempty"`
}

func partToJSON(m *rtaskv1.ConditionPart) partJSON {
	return partJSON{m.GetText(), m.GetFile(), m.GetLine(), m.GetResult(), m.GetProblem(), m.GetValue()}
}

// requestJSON is a request to a webhook.
type requestJSON struct {
	Method   string       `json:"method"`
	URL      string       `json:"url"`
	Headers  []headerJSON `json:"headers"`
	Body     string       `json:"body"`
	Encoding string       `json:"encoding,omitempty"` // of Body; see view.Base64
}

type headerJSON struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	Encoding string `json:"encoding,omitempty"` // of Value
}

func (a *app) webhookTestCommand() *cli.Command {
	headers := &settings{}
	return &cli.Command{
		Name: "test", Usage: "show what a correctly signed request would do", UsageText: "rtaskctl webhook test [OPTION…] TASK/NAME",
		Description: "The request is what the webhook's sender sends for the first event and ref that the webhook takes, or for a push. Without " +
			"--run, nothing is started. rtaskctl webhook test --show TASK/NAME | curl --config - sends it over HTTP.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "event", Usage: "the request is about this `EVENT`, as the sender calls it"},
			&cli.StringFlag{Name: "ref", Usage: "the request is about this branch or tag, in full: `refs/heads/main`"},
			&cli.StringFlag{Name: "body", Usage: "the body is the content of `FILE`, - is standard input"},
			&cli.GenericFlag{Name: "header", Value: headers, Usage: "the request has this header, `'NAME: VALUE'`, in place of the sender's of that name"},
			&cli.GenericFlag{Name: "H", Value: headers, Usage: "the same as --header `'NAME: VALUE'`"},
			boolFlag("print the signed request, too, as a configuration of curl", "show"),
			boolFlag("send the request for real: the task starts", "run"),
			jsonFlag(),
		},
		Action: a.webhookTest,
	}
}

func (a *app) webhookTest(c *cli.Context) error {
	ref, err := oneArg(c, "TASK/NAME")
	if err != nil {
		return err
	}
	m := &rtaskv1.TestWebhookRequest{Run: c.Bool("run"), Event: c.String("event"), Ref: c.String("ref"), Show: c.Bool("show")}
	if m.Task, m.Name, err = hookOf(c, ref); err != nil {
		return err
	}
	for _, one := range settingsOf(c, "header") {
		name, value, ok := strings.Cut(one, ":")
		if !ok {
			return misuse(c, "--header: %q is not 'NAME: VALUE'", one)
		}
		m.Headers = append(m.Headers, &rtaskv1.Header{Name: strings.TrimSpace(name), Value: []byte(strings.TrimSpace(value))})
	}
	if c.IsSet("body") {
		body, err := a.input(c.Context, c.String("body"))
		if err != nil {
			return err
		}
		m.Body = append([]byte{}, body...) // an empty one is a body, too
	}
	r, err := call(a, c, jobs.TestWebhook, m)
	if err != nil {
		return err
	}
	text := webhookTestText(r)
	if r.GetRequest() != nil && !c.Bool("json") {
		request, err := curlConfig(r.GetRequest())
		if err != nil {
			return errors.Join(a.print(text), err)
		}
		text = "# " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n# ") + "\n" + request
	}
	err = a.result(c, webhookTestToJSON(r), text)
	if err == nil && r.GetDecision() == "refused" {
		return exitStatus(exitError)
	}
	return err
}

// hookOf reads TASK/NAME.
func hookOf(c *cli.Context, ref string) (task, name string, err error) {
	task, name, ok := strings.Cut(ref, "/")
	if !ok || task == "" || name == "" {
		return "", "", misuse(c, "%q is not TASK/NAME", ref)
	}
	return task, name, nil
}

func webhookTestToJSON(m *rtaskv1.TestWebhookResponse) webhookTestJSON {
	v := webhookTestJSON{
		Webhook: view.WebhookOf(m.GetWebhook()), Decision: m.GetDecision(), Kind: m.GetKind(), Reason: m.GetReason(), Event: m.GetEvent(),
		Ref: m.GetRef(), Environment: m.GetEnvironment(), When: view.Each(m.GetWhen(), partToJSON),
	}
	if m.GetJob() != nil {
		j := view.JobOf(m.GetJob())
		v.Job = &j
	}
	if r := m.GetRequest(); r != nil {
		v.Request = &requestJSON{Method: r.GetMethod(), URL: r.GetUrl(), Headers: []headerJSON{}, Body: string(r.GetBody())}
		_, v.Request.Encoding = view.Base64(nil, &v.Request.Body)
		for _, h := range r.GetHeaders() {
			one := headerJSON{Name: h.GetName(), Value: string(h.GetValue())}
			_, one.Encoding = view.Base64(nil, &one.Value)
			v.Request.Headers = append(v.Request.Headers, one)
		}
	}
	return v
}

// webhookTestText says what would happen, or what did.
func webhookTestText(m *rtaskv1.TestWebhookResponse) string {
	var b strings.Builder
	w := m.GetWebhook()
	b.WriteString(printable(cmp.Or(m.GetMethod(), "POST")) + " " + printable(w.GetUrl()) + "\n")
	if m.GetEvent() != "" {
		b.WriteString("signed as " + printable(w.GetVerify()) + ", event " + printable(m.GetEvent()))
		if m.GetRef() != "" {
			b.WriteString(", ref " + printable(m.GetRef()))
		}
		b.WriteString("\n")
	}
	switch j := m.GetJob(); {
	case m.GetDecision() == "refused":
		b.WriteString("refused: " + oneLine(m.GetReason()) + " (" + printable(m.GetKind()) + ")\n")
	case m.GetDecision() == "ignored":
		b.WriteString("ignored: " + oneLine(m.GetReason()) + "\n")
	case j != nil:
		b.WriteString("accepted: " + printable(w.GetTask()) + " was started, job " + printable(j.GetId()) + " " + view.Status(j) + ", with\n")
	default:
		b.WriteString("accepted: " + printable(w.GetTask()) + " would start, with\n")
	}
	for _, kv := range m.GetEnvironment() {
		b.WriteString("  " + printable(kv) + "\n")
	}
	return b.String() + partsText(m.GetWhen())
}

// partsText says what each part of a webhook's condition came to; "" where there is none.
func partsText(parts []*rtaskv1.ConditionPart) string {
	var b strings.Builder
	for i, p := range parts {
		if i == 0 {
			b.WriteString("when, in " + printable(p.GetFile()) + ":\n")
		}
		fmt.Fprintf(&b, "  %4d: %-7s  %s", p.GetLine(), printable(p.GetResult()), oneLine(p.GetText()))
		if p.GetValue() != "" && p.GetValue() != p.GetResult() {
			b.WriteString("   (" + oneLine(p.GetValue()) + ")")
		}
		if p.GetProblem() != "" {
			b.WriteString("   (" + oneLine(p.GetProblem()) + ")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// longestShown is how many bytes of a body are shown as text: curl reads lines of 100 KiB at most.
const longestShown = 64 << 10

// curlConfig is a request as curl reads it from a file or standard input (curl(1), --config), so that nothing of it, which may be a
// secret, becomes an argument of a process.
func curlConfig(r *rtaskv1.SampleRequest) (string, error) {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, curlQuote(value)) }
	line("request", r.GetMethod())
	line("url", r.GetUrl())
	typed := false
	for _, h := range r.GetHeaders() {
		typed = typed || strings.EqualFold(h.GetName(), "Content-Type")
		switch value := string(h.GetValue()); {
		case value == "": // curl sends none, but for this
			line("header", h.GetName()+";")
		case !wording.IsPrintable(strings.ReplaceAll(value, "\t", " ")):
			return "", &hintError{fmt.Errorf("the header %s is not text", h.GetName()), "--json prints it in base64"}
		default:
			line("header", h.GetName()+": "+value)
		}
	}
	body := string(r.GetBody())
	switch {
	case body == "" && r.GetMethod() != "POST":
		return b.String(), nil
	case !wording.IsPrintable(strings.NewReplacer("\n", " ", "\r", " ", "\t", " ").Replace(body)):
		return "", &hintError{errors.New("the body is not text"), "--json prints it in base64"}
	case len(body) > longestShown:
		return "", &hintError{fmt.Errorf("the body has %d bytes, too many for a line of curl's configuration", len(body)), "--json prints it"}
	}
	if !typed {
		line("header", "Content-Type:") // or curl makes one up
	}
	line("data-raw", body)
	return b.String(), nil
}

// curlQuote is a value of curl's configuration.
func curlQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}
