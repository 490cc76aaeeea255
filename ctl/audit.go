package ctl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rtask/rtask/ctl/client"
	"github.com/rtask/rtask/ctl/journal"
	"github.com/rtask/rtask/daemon/api/view"
)

const (
	// auditUnit is the engine's unit, with a user's own manager, too.
	auditUnit = "rtask.service"
	// auditCount is the field that Count is of.
	auditCount = "RTASK_COUNT"
	// auditLast and auditFollowed are how many entries are shown where nothing is said.
	auditLast     = 1000
	auditFollowed = 10
)

// auditJSON is a decision as --json prints it. What is not known is left out.
type auditJSON struct {
	at         time.Time
	Time       string `json:"time"`
	Decision   string `json:"decision"`
	Action     string `json:"action,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Task       string `json:"task,omitempty"`
	Command    string `json:"command,omitempty"`
	Encoding   string `json:"encoding,omitempty"` // of Command; see view.Base64
	Key        string `json:"key,omitempty"`
	KeyID      string `json:"key_id,omitempty"`
	User       string `json:"user,omitempty"`
	Subject    string `json:"subject,omitempty"`
	Serial     string `json:"serial,omitempty"` // of Subject's certificate
	Role       string `json:"role,omitempty"`
	Provider   string `json:"provider,omitempty"` // who vouched for Subject
	Webhook    string `json:"webhook,omitempty"`
	RemoteAddr string `json:"remote_addr,omitempty"`
	Delivery   string `json:"delivery,omitempty"`
	Job        string `json:"job,omitempty"`
	Count      int    `json:"count,omitempty"` // there: not a decision, but so many that were only counted, of which this is the last
}

// fields are the entry's, by name.
func (v *auditJSON) fields() map[string]*string {
	return map[string]*string{
		"RTASK_DECISION": &v.Decision, "RTASK_ACTION": &v.Action, "RTASK_KIND": &v.Kind, "RTASK_REASON": &v.Reason, "RTASK_TASK": &v.Task,
		"RTASK_COMMAND": &v.Command, "RTASK_KEY": &v.Key, "RTASK_KEY_ID": &v.KeyID, "RTASK_USER": &v.User, "RTASK_WEBHOOK": &v.Webhook,
		"RTASK_SUBJECT": &v.Subject, "RTASK_SERIAL": &v.Serial, "RTASK_ROLE": &v.Role, "RTASK_PROVIDER": &v.Provider,
		"RTASK_REMOTE_ADDR": &v.RemoteAddr, "RTASK_DELIVERY": &v.Delivery, "RTASK_JOB_ID": &v.Job,
	}
}

func (a *app) auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "show which requests were accepted and refused, and why", UsageText: "rtaskctl audit [OPTION…]",
		Description: "Entries of the journal, the oldest first. Entries that the engine did not write are left out.\n" + momentHelp,
		Flags: []cli.Flag{
			boolFlag("show only requests that were refused, or ignored by a webhook", "refused"),
			&cli.StringFlag{Name: "task", Usage: "show only requests for this `TASK`"},
			&cli.StringFlag{Name: "key", Usage: "show only requests with the API key of this `NAME` or id"},
			&cli.StringFlag{Name: "subject", Usage: "show only requests of the client on another machine with this `IDENTITY`"},
			&cli.StringFlag{Name: "webhook", Usage: "show only requests to the webhook `NAME`"},
			sinceFlag("only what was decided at `TIME` or after it"),
			untilFlag("only what was decided until `TIME`"),
			&cli.StringFlag{Name: "limit", Aliases: []string{"n"}, Usage: "show at most the newest `N` (default: 1000, with -f 10)"},
			boolFlag("keep showing new entries", "follow", "f"),
			boolFlag("print the result as JSON, with -f one object a line", "json"),
		},
		Action: a.audit,
	}
}

func (a *app) audit(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	q, err := a.auditQuery(c)
	if err != nil {
		return err
	}
	var found []auditJSON
	each := func(v auditJSON) error { found = append(found, v); return nil }
	switch {
	case q.Follow && c.Bool("json"):
		each = func(v auditJSON) error { return a.printJSON(v.json()) }
	case q.Follow:
		first, line := a.auditLine()
		each = func(v auditJSON) error { return a.print(line(v.row())) }
		if err := a.print(first); err != nil {
			return err
		}
	}
	err = journal.Journal{Root: "/"}.Read(c.Context, q, func(e journal.Entry) error { return each(auditOf(e)) })
	switch {
	case errors.Is(err, journal.ErrNone):
		return &hintError{err, "there, rtaskd writes its decisions to its standard error"}
	case errors.Is(err, journal.ErrUnreadable):
		return &hintError{err, "root and members of the groups systemd-journal and adm may read it"}
	case err != nil || q.Follow:
		return err
	}
	return listing[auditJSON, auditJSON]{
		view: auditJSON.json, header: auditHeader(), row: auditJSON.row, none: "There are no such entries in the journal.",
	}.print(a, c, found)
}

// auditQuery is what the flags ask the journal for.
func (a *app) auditQuery(c *cli.Context) (journal.Query, error) {
	q := journal.Query{Follow: c.Bool("follow"), Last: auditLast}
	since, until, err := bounds(c)
	if err != nil {
		return q, err
	}
	if since != nil {
		q.Since = since.AsTime()
	}
	if until != nil {
		q.Until = until.AsTime()
	}
	switch {
	case c.IsSet("limit"):
		if q.Last, err = strconv.Atoi(c.String("limit")); err != nil || q.Last < 1 {
			return q, misuse(c, "--limit: %q is not a number of entries", c.String("limit"))
		}
	case q.Follow && since == nil:
		q.Last = auditFollowed
	}
	terms, err := a.auditWriter(c)
	if err != nil {
		return q, err
	}
	if terms[0] != "_UID=0" {
		q.User = &a.env.UID
	}
	decisions := []string{"refused", "ignored"}
	if !c.Bool("refused") {
		decisions = append(decisions, "accepted")
	}
	for _, d := range decisions {
		terms = append(terms, "RTASK_DECISION="+d)
	}
	for name, field := range map[string]string{"task": "RTASK_TASK", "webhook": "RTASK_WEBHOOK", "subject": "RTASK_SUBJECT"} {
		if c.IsSet(name) {
			terms = append(terms, field+"="+c.String(name))
		}
	}
	q.Match = [][]string{terms}
	if key := c.String("key"); c.IsSet("key") {
		q.Match = [][]string{append(terms[:len(terms):len(terms)], "RTASK_KEY="+key), append(terms[:len(terms):len(terms)], "RTASK_KEY_ID="+key)}
	}
	for name := range (&auditJSON{}).fields() {
		q.Fields = append(q.Fields, name)
	}
	q.Fields = append(q.Fields, auditCount)
	return q, nil
}

// auditWriter are the terms that only entries of the engine fit that is meant: anybody can write RTASK_ fields.
func (a *app) auditWriter(c *cli.Context) ([]string, error) {
	path, err := a.socket(c, "audit reads the journal of this machine")
	switch {
	case err != nil:
		return nil, err
	case path == client.DefaultPath:
		return []string{"_UID=0", "_SYSTEMD_UNIT=" + auditUnit}, nil
	case path == a.userSocket():
		return []string{fmt.Sprintf("_UID=%d", a.env.UID), "_SYSTEMD_USER_UNIT=" + auditUnit}, nil
	}
	return nil, &hintError{
		fmt.Errorf("the journal has no decisions of the engine at %s: only %s writes to it", path, auditUnit),
		"look at the standard error of that engine",
	}
}

func auditOf(e journal.Entry) auditJSON {
	v := auditJSON{at: e.Time, Time: view.Time(timestamppb.New(e.Time))}
	for name, to := range v.fields() {
		*to = e.Fields[name]
	}
	v.Count, _ = strconv.Atoi(e.Fields[auditCount]) // the engine's own word
	return v
}

// json is the decision with any bytes in it.
func (v auditJSON) json() auditJSON {
	_, v.Encoding = view.Base64(nil, &v.Command)
	return v
}

func auditHeader() []column {
	return []column{
		{name: "TIME"}, {name: "DECISION"}, {name: "ACTION", drop: 2}, {name: "TASK/COMMAND", least: 12}, {name: "WHO", least: 12}, {name: "FROM", least: 10},
		{name: "JOB", drop: 1}, {name: "REASON", below: true},
	}
}

// auditNames are the cells of the header.
func auditNames() (names []string) {
	for _, c := range auditHeader() {
		names = append(names, c.name)
	}
	return names
}

// row are the cells of a decision. Who is as ps has the owner of a job.
func (v auditJSON) row() []string {
	task, who, from, reason := v.Task, v.User, v.RemoteAddr, v.Reason
	if task == "" {
		task = v.Command
	}
	switch {
	case v.Webhook != "":
		who = "webhook:" + v.Webhook
	case v.Key != "":
		who = "key:" + v.Key
	case v.Subject != "":
		who = v.Subject
	}
	if from == "" && v.User != "" {
		from = "local"
	}
	if v.Kind != "" {
		reason = strings.TrimSuffix(v.Kind+": "+reason, ": ")
	}
	if v.Count > 0 {
		reason += fmt.Sprintf(" (%d more like this in the minute before)", v.Count)
	}
	return []string{v.at.Local().Format("2006-01-02 15:04:05"), v.Decision, v.Action, task, who, from, v.Job, oneLine(reason)}
}

// auditLine returns the header and what makes the line of a row, for rows that come one by one: columns stay where they are, as far as that can be known beforehand.
func (a *app) auditLine() (first string, line func(cells []string) string) {
	columns, total := auditHeader(), a.width()
	natural := []int{19, 8, 6, 16, 16, 15, 16, 40} // an id has 16 characters, an address of IPv4 15
	widths := fit(columns, natural, make([]bool, len(columns)), total)
	header := auditNames()
	if widths[len(widths)-1] == putBelow {
		header[len(header)-1] = ""
	}
	line = func(cells []string) string {
		safe := make([]string, len(cells))
		for i, cell := range cells {
			safe[i] = printable(cell)
			if total == 0 {
				widths[i] = max(natural[i], utf8.RuneCountInString(safe[i]))
			}
		}
		return row(columns, widths, safe, total)
	}
	return line(header), line
}
