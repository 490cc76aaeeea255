package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/sandbox/wording"
)

// senderJSON is a row of the table of senders. Places are written as in a configuration.
type senderJSON struct {
	Verify string   `json:"verify"`
	Sender string   `json:"sender"`
	Docs   []string `json:"docs,omitempty"`
	// Proof is the proof in words. Secret is the header that has the secret itself, and the others are those of a signature.
	Proof     string   `json:"proof"`
	Secret    string   `json:"secret,omitempty"`
	Signature string   `json:"signature,omitempty"`
	Method    string   `json:"method,omitempty"`
	Encoding  string   `json:"encoding,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	Signed    string   `json:"signed,omitempty"`
	Timestamp string   `json:"timestamp,omitempty"`
	Event     []string `json:"event,omitempty"`
	ID        []string `json:"id,omitempty"`
	Ref       []string `json:"ref,omitempty"`
	Commit    []string `json:"commit,omitempty"`
	Deleted   string   `json:"deleted,omitempty"`
	Pings     []string `json:"pings,omitempty"`
	Challenge string   `json:"challenge,omitempty"`
	Reply     string   `json:"reply,omitempty"`
	Note      string   `json:"note,omitempty"`
}

func (a *app) sendersCommand() *cli.Command {
	return &cli.Command{
		Name: "senders", Usage: "list the senders that verify knows", UsageText: "rtaskctl webhook senders [--json] [NAME]",
		Description: "With a NAME, all that is known of one sender: what proves its requests, where event, id and ref stand, and where it documents that. This needs no engine.",
		Flags:       []cli.Flag{jsonFlag()}, Action: a.webhookSenders,
	}
}

func (a *app) webhookSenders(c *cli.Context) error {
	if c.NArg() > 0 {
		name, err := oneArg(c, "NAME")
		if err != nil {
			return err
		}
		s, ok := webhook.SenderOf(webhook.Kind(name))
		if !ok {
			names := func(yield func(string) bool) {
				for _, k := range webhook.Kinds() {
					if !yield(string(k)) {
						return
					}
				}
			}
			hint := "Do: rtaskctl webhook senders"
			if near := wording.Nearest(name, names); len(near) > 0 {
				hint = "Did you mean " + strings.Join(near, " or ") + "?"
			}
			return &hintError{fmt.Errorf("there is no sender %q", name), hint}
		}
		if c.Bool("json") {
			return a.printJSON(senderToJSON(s))
		}
		return a.printSender(senderToJSON(s))
	}
	return listing[webhook.Sender, senderJSON]{
		view: senderToJSON, header: []column{{name: "VERIFY"}, {name: "SENDER", least: 12}, {name: "PROOF", least: 24}, {name: "EVENT", least: 12, drop: 1}},
		row: func(s webhook.Sender) []string {
			v := senderToJSON(s)
			return []string{v.Verify, v.Sender, v.Proof, cut(strings.Join(v.Event, " or "))}
		},
	}.print(a, c, webhook.Senders())
}

func senderToJSON(s webhook.Sender) senderJSON {
	v := senderJSON{
		Verify: string(s.Kind), Sender: s.Title, Docs: s.Docs, Proof: strings.ReplaceAll(s.Proof(), "`", ""), Secret: s.Secret, Timestamp: s.Time.String(),
		Event: places(s.Event), ID: places(s.ID), Pings: s.Pings, Challenge: s.Challenge.String(), Note: strings.ReplaceAll(s.Note, "`", ""),
	}
	if g := s.Signature; g != nil && !s.Configured() {
		v.Signature, v.Method, v.Encoding, v.Prefix, v.Signed = g.Place.String(), g.Method(), string(g.Encoding), g.Prefix, g.Signed
	}
	if s.Refs != nil {
		v.Ref, v.Commit, v.Deleted = s.Refs.Places()
	}
	if s.Reply != nil {
		v.Reply = s.Reply.String()
	}
	return v
}

// cut is a text for a column of a table: of more than two places, the first.
func cut(text string) string {
	if first, rest, _ := strings.Cut(text, " or "); strings.Contains(rest, " or ") {
		return first + " …"
	}
	return text
}

func places(all []webhook.Place) []string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return texts
}

// printSender prints one sender.
func (a *app) printSender(v senderJSON) error {
	lines := func(all []string) string { return strings.Join(all, "\n") }
	return a.fields(slices.DeleteFunc([][2]string{
		{"Verify", v.Verify}, {"Sender", v.Sender}, {"Proof", v.Proof}, {"Time", v.Timestamp}, {"Event", lines(v.Event)}, {"Id", lines(v.ID)},
		{"Ref", lines(v.Ref)}, {"Commit", lines(v.Commit)}, {"Deleted", v.Deleted}, {"Ping", strings.Join(v.Pings, ", ")},
		{"Challenge", v.Challenge}, {"Reply", v.Reply}, {"Note", v.Note}, {"Docs", lines(v.Docs)},
	}, func(f [2]string) bool { return f[1] == "" }))
}
