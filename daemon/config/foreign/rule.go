package foreign

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/rtask/rtask/sandbox/wording"
)

// verifier is how requests are verified.
type verifier struct {
	// header has the signature, an HMAC with hash ("sha1", "sha256" or "sha512"), in hexadecimal digits. They are "" where GitLab
	// sends the secret itself.
	header, hash string
	secrets      []string
}

// same says that both read the same header in the same way.
func (v *verifier) same(o *verifier) bool { return v.header == o.header && v.hash == o.hash }

// soft says that webhook goes on to another secret after this one was wrong.
func (v *verifier) soft(h *hook) bool { return v.hash == "" || h.soft }

// cond is a condition.
type cond struct {
	kind condKind
	kids []*cond
	// text is an expression, of a leaf, and data what it is an error without; "" of one that nothing can be missing for.
	text, data string
}

type condKind int

const (
	isTrue condKind = iota
	isFalse
	allOf // kids
	anyOf // kids
	notOf // the kid
	aLeaf
)

// rules turns a trigger rule into what verifies requests, nil if nothing does, and a condition on them.
//
// What rtask has nothing for becomes something that is never true, or under a "not" something that is always true: so the condition
// only gets stricter.
type rules struct {
	hook *hook
	// lost notes what is not carried over.
	lost func(line int, format string, args ...any)
}

// split takes what verifies requests out of a rule, where the rule cannot be true without it.
func (c *rules) split(r *rule) (*verifier, *cond) {
	c.extras(r)
	switch r.kind {
	case "match":
		if v := c.verifier(r); v != nil {
			return v, &cond{kind: isTrue}
		}
	case "and":
		var found *verifier
		both := &cond{kind: allOf}
		for _, kid := range r.kids {
			v, k := c.split(kid)
			switch {
			case v == nil:
			case found == nil:
				found = v
			case !found.same(v) || !slices.Equal(found.secrets, v.secrets):
				c.lost(kid.line, "a second signature in one request: rtask verifies one, so nothing triggers")
				k = &cond{kind: isFalse}
			}
			both.kids = append(both.kids, k)
		}
		return found, both
	case "or":
		return c.splitOr(r)
	}
	return nil, c.condition(r, false)
}

// splitOr takes what verifies requests out of alternatives. If some are signed, those that are not are left out.
func (c *rules) splitOr(r *rule) (*verifier, *cond) {
	if !slices.ContainsFunc(r.kids, signed) {
		return nil, c.condition(r, false)
	}
	var found *verifier
	either := &cond{kind: anyOf}
	for _, kid := range r.kids {
		if !signed(kid) {
			c.lost(kid.line, "an alternative that needs no signature, beside one that does: what is not signed triggers nothing")
			continue
		}
		v, k := c.split(kid)
		switch {
		case v == nil: // which was said
			continue
		case found == nil:
			found = v
		case found.same(v) && slices.Equal(found.secrets, v.secrets):
		case found.same(v) && v.soft(c.hook) && isAlways(k) && isAlways(either):
			found.secrets = append(found.secrets, v.secrets...)
		case found.same(v) && !v.soft(c.hook):
			c.lost(kid.line, "a signature with another secret: webhook never tries it, as trigger-signature-soft-failures is not set")
			continue
		default:
			c.lost(kid.line, "an alternative with another signature: rtask verifies one in each webhook. Give the task a webhook for each")
			continue
		}
		either.kids = append(either.kids, k)
	}
	return found, either
}

// isAlways reports whether all that there is of c is always true.
func isAlways(c *cond) bool {
	return c.kind == isTrue || (c.kind == allOf || c.kind == anyOf) && !slices.ContainsFunc(c.kids, func(k *cond) bool { return !isAlways(k) })
}

// signed reports whether a rule cannot be true without a signature.
func signed(r *rule) bool {
	switch r.kind {
	case "match":
		return strings.HasPrefix(r.match.kind, "payload-h") || r.match.isGitLab()
	case "and":
		return slices.ContainsFunc(r.kids, signed)
	case "or":
		return len(r.kids) > 0 && !slices.ContainsFunc(r.kids, func(k *rule) bool { return !signed(k) })
	}
	return false
}

// extras notes rules beside the one that holds.
func (c *rules) extras(r *rule) {
	for _, name := range r.more {
		c.lost(r.line, "%q: webhook reads one of and, or, not and match in each rule", name)
	}
}

// verifier is what a signature is verified with, or nil if it is none that rtask can verify.
func (c *rules) verifier(r *rule) *verifier {
	m := r.match
	if m.isGitLab() {
		return &verifier{secrets: []string{m.value}}
	}
	hash, ok := strings.CutPrefix(strings.Replace(m.kind, "payload-hash-", "payload-hmac-", 1), "payload-hmac-")
	if !ok || !slices.Contains([]string{"sha1", "sha256", "sha512"}, hash) || m.parameter.source != "header" || m.secret == "" {
		return nil
	}
	return &verifier{header: m.parameter.name, hash: hash, secrets: []string{m.secret}}
}

// isGitLab reports whether a match is of the secret that GitLab sends. One that begins as a signing token does is not sent.
func (m match) isGitLab() bool {
	return m.kind == "value" && m.parameter.source == "header" && strings.EqualFold(m.parameter.name, "X-Gitlab-Token") && m.value != "" &&
		!strings.HasPrefix(m.value, "whsec_")
}

// condition turns a rule without a signature into a condition. negative says that it stands under an odd number of "not".
func (c *rules) condition(r *rule, negative bool) *cond {
	strictest := &cond{kind: isFalse}
	if negative {
		strictest.kind = isTrue
	}
	switch r.kind {
	case "and", "or":
		k := &cond{kind: allOf}
		if r.kind == "or" {
			k.kind = anyOf
		}
		for _, kid := range r.kids {
			c.extras(kid)
			k.kids = append(k.kids, c.condition(kid, negative))
		}
		return k
	case "not":
		c.extras(r.kids[0])
		return &cond{kind: notOf, kids: []*cond{c.condition(r.kids[0], !negative)}}
	case "match":
		k, err := c.leaf(r.match)
		if err != nil {
			c.lost(r.line, "match of type %q: %v. What depends on it triggers nothing", r.match.kind, err)
			return strictest
		}
		return k
	default:
		c.lost(r.line, "a rule without and, or, not and match, which is never true")
		return strictest
	}
}

// leaf is the condition of a match that is no signature.
func (c *rules) leaf(m match) (*cond, error) {
	switch {
	case m.kind == "ip-whitelist":
		return ranges(m.ranges)
	case m.kind == "scalr-signature":
		return nil, fmt.Errorf("rtask does not know how Scalr writes the time that it signs")
	case strings.HasPrefix(m.kind, "payload-h") && m.secret == "":
		return nil, fmt.Errorf("its secret is empty, which webhook takes for an error, too")
	case strings.HasPrefix(m.kind, "payload-h"):
		return nil, fmt.Errorf("rtask verifies a signature in a header that every request must have")
	case m.kind != "value" && m.kind != "regex":
		return nil, fmt.Errorf("webhook knows no such type")
	}
	v, err := c.hook.value(m.parameter)
	switch {
	case err != nil:
		return nil, err
	case v.raw:
		return nil, fmt.Errorf("conditions see what is in the body, and not its bytes")
	case v.literal != nil:
		v.expr = wording.HCL(*v.literal)
	}
	if m.kind == "regex" {
		if _, err := regexp.Compile(m.regex); err != nil {
			return nil, fmt.Errorf("the regular expression cannot be used")
		}
		if !representable(m.regex) {
			return nil, fmt.Errorf("the regular expression is not as Unicode composes it (NFC)")
		}
		return &cond{kind: aLeaf, text: fmt.Sprintf("length(regexall(%s, %s)) > 0", wording.HCL(m.regex), v.expr), data: v.expr}, nil
	}
	return equal(m, v)
}

// equal compares a value with a string of the configuration.
func equal(m match, v value) (*cond, error) {
	want := m.value
	switch {
	case !representable(want):
		return nil, fmt.Errorf("the value is not as Unicode composes it (NFC)")
	case isSecret(m.parameter): // neither to be seen in what rtask says of a condition, nor to be found out by how long it takes
		sum := sha256.Sum256([]byte(want))
		return &cond{kind: aLeaf, text: fmt.Sprintf("sha256(%s) == %q", v.expr, hex.EncodeToString(sum[:])), data: v.expr}, nil
	case !v.text && v.literal == nil && (want == "<nil>" || strings.HasPrefix(want, "{") || strings.HasPrefix(want, "[")):
		return nil, fmt.Errorf("webhook compares with how it writes an object, a list or null")
	case !v.text && v.literal == nil && plainJSON(want) && !canonical(want):
		return nil, fmt.Errorf("webhook compares a number as the sender wrote it. rtask writes numbers without exponents and zeros at their end")
	case !v.text && v.literal == nil && plainJSON(want):
		return &cond{kind: aLeaf, text: fmt.Sprintf("tostring(%s) == %s", v.expr, wording.HCL(want)), data: v.expr}, nil
	}
	return &cond{kind: aLeaf, text: v.expr + " == " + wording.HCL(want), data: v.expr}, nil
}

// plainJSON reports whether s is how JSON may write a number or a truth.
func plainJSON(s string) bool {
	return s == "true" || s == "false" || regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`).MatchString(s)
}

// canonical reports whether a number, or a truth, is written as rtask writes it.
func canonical(s string) bool {
	return s == "true" || s == "false" || regexp.MustCompile(`^(0|-?[1-9][0-9]*|-?(0|[1-9][0-9]*)\.[0-9]*[1-9])$`).MatchString(s)
}

// broken returns the first match at which webhook stops with an error, whatever stands around it, and why; nil if there is none.
func (r *rule) broken() (*rule, error) {
	for _, kid := range r.kids {
		if at, err := kid.broken(); at != nil {
			return at, err
		}
	}
	if r.kind != "match" {
		return nil, nil
	}
	var err error
	switch m := r.match; {
	case m.kind == "ip-whitelist" && m.ranges != "":
		_, err = ranges(m.ranges)
	case m.kind == "regex":
		_, err = regexp.Compile(m.regex)
	case (strings.HasPrefix(m.kind, "payload-h") || m.kind == "scalr-signature") && m.secret == "":
		err = fmt.Errorf("its secret is empty")
	}
	if err != nil {
		return r, err
	}
	return nil, nil
}

// isSecret guesses by its name that a value is a secret.
func isSecret(a argument) bool {
	if a.source == "string" {
		return false
	}
	return regexp.MustCompile(`(?i)token|secret|passw|auth|key|credential|signature`).MatchString(a.name) && !strings.EqualFold(a.name, "X-Event-Key")
}

// ranges is the condition that a request comes from one of the networks.
func ranges(text string) (*cond, error) {
	either := &cond{kind: anyOf}
	for _, s := range strings.Fields(text) {
		p, err := netip.ParsePrefix(s)
		if addr, single := netip.ParseAddr(s); single == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Addr().Zone() != "" {
			return nil, fmt.Errorf("%q is no network", s)
		}
		either.kids = append(either.kids, &cond{kind: aLeaf, text: fmt.Sprintf("cidrcontains(%q, remote_addr)", p.Masked())})
	}
	if len(either.kids) == 0 {
		return nil, fmt.Errorf("there is no network in it")
	}
	return either, nil
}
