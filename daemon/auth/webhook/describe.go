package webhook

import (
	"fmt"
	"strings"
)

// Proof says in a line how a sender proves who it is, where `…` is what is written.
func (s Sender) Proof() string {
	var ways []string
	switch {
	case !s.Kind.Signed():
		ways = append(ways, "the last part of the URL")
	case s.Configured():
		ways = append(ways, "an HMAC in the `header` that is named")
	}
	switch s.Secret {
	case "":
	case authorization:
		ways = append(ways, "the secret as password of `Authorization: Basic` or token of `Bearer`")
	default:
		ways = append(ways, "the secret in "+quoted(s.Secret))
	}
	if g := s.Signature; g != nil && !s.Configured() {
		form := "in " + string(g.Encoding)
		if g.Prefix != "" {
			form = "as " + quoted(g.Form())
		}
		ways = append(ways, fmt.Sprintf("%s, %s of %s %s", quoted(g.Place.names()...), g.Method(), quoted(g.Signed), form))
	}
	return strings.Join(ways, ", or ")
}

// Configured reports whether the configuration says how it signs.
func (s Sender) Configured() bool { return s.Kind == HMACSHA256 || s.Kind == HMAC }

// Method is what a signature is made with.
func (s *Signature) Method() string {
	if s.Ed25519 {
		return "Ed25519"
	}
	return "HMAC-" + strings.ToUpper(string(s.Hash))
}

// Form is how a signature is written: v1=HEX.
func (s *Signature) Form() string { return s.Prefix + strings.ToUpper(string(s.Encoding)) }

// names are what a place is called in texts: names of a header, or a path.
func (p Place) names() []string {
	if len(p.Body) > 0 {
		return []string{p.String()}
	}
	return p.Header
}

// quoted are names that are written as they are.
func quoted(names ...string) string { return "`" + strings.Join(names, "` or `") + "`" }

// Summary is what the manual says of a sender, in sentences.
func (s Sender) Summary() string {
	var parts []string
	if len(s.Docs) > 0 { // the others' notes say all
		parts = append(parts, s.Title+": "+s.Proof()+".")
	}
	if !s.Time.IsZero() && s.Time.Field == "" {
		parts = append(parts, "The time is "+quoted(s.Time.Place.names()...)+".")
	}
	if len(s.Docs) > 0 && len(s.Event) > 0 && s.read == nil { // the others' notes say it
		parts = append(parts, "The event is "+quoted(s.Event[0].names()...)+".")
	}
	if s.Challenge.Query != "" {
		parts = append(parts, "The challenge that comes by GET is answered.")
	}
	if s.Note != "" {
		parts = append(parts, s.Note)
	}
	return strings.Join(parts, " ")
}

// Places are where a body names a ref and its commit, and what says that the ref was deleted, as a configuration names them.
func (r *Refs) Places() (refs, commits []string, deleted string) {
	in := "body."
	if len(r.List) > 0 {
		in += path(r.List) + "[0]."
	}
	texts := func(paths [][]string) (all []string) {
		for _, p := range paths {
			all = append(all, in+path(p))
		}
		return all
	}
	var signs []string
	if len(r.Gone) > 0 {
		signs = append(signs, in+path(r.Gone)+" == "+r.GoneIs)
	}
	if len(r.Zero) > 0 {
		signs = append(signs, in+path(r.Zero)+" is all zeros")
	}
	return texts(r.Ref), texts(r.Commit), strings.Join(signs, ", or ")
}

// String returns what is asked and how it is answered, "" for nothing.
func (c Challenge) String() string {
	if c.Query == "" {
		return ""
	}
	text := "GET with " + c.Query + "=TEXT"
	if c.Mode != "" {
		text += ", " + c.Mode + "=" + c.ModeIs
	}
	if c.Token != "" {
		text += ", " + c.Token + "=TOKEN"
	}
	return text + " is answered with the TEXT"
}

// String returns a reply in short: 200 text/xml <Response/>.
func (r Reply) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", r.Status, r.ContentType, r.Body))
}
