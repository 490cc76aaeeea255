package provider

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rtask/rtask/daemon/auth/token"
)

const (
	// maxToken is the most bytes of a provider's token.
	maxToken = 16 << 10
	// maxAge is how long ago an ID token may have been issued when it is used.
	maxAge = 5 * time.Minute
	// late is how far a provider's clock may be ahead.
	late = time.Minute
	// maxSubject is the most bytes of a user's name, maxGroups how many groups a user has, maxGroup the most bytes of one.
	maxSubject, maxGroups, maxGroup = 256, 256, 256
)

// Login is what a provider said of a user.
type Login struct {
	// Provider is its name in the configuration.
	Provider string
	// Subject is what the provider calls the user. Email says that it is an address that the provider has verified.
	Subject string
	Email   bool
	// Groups are those of the user, without the provider's name.
	Groups []string
	// Session is how long what follows from the login may last.
	Session time.Duration
}

// Names returns the names by which the groups of roles call the user's: "PROVIDER" and "PROVIDER:GROUP".
func (l Login) Names() []string {
	all := []string{l.Provider}
	for _, g := range l.Groups {
		all = append(all, l.Provider+":"+g)
	}
	return all
}

// Use verifies an ID token of the provider of a name (OpenID Connect Core 1.0, section 3.1.3.7) that is to become a certificate or a
// token for a public key, of which spki is the SubjectPublicKeyInfo. Each ID token can be used once, within five minutes of its issue.
// The errors are a *Refusal, and others if the engine cannot do its part.
func (s *Set) Use(name string, raw, spki []byte) (Login, error) {
	p := s.find(name)
	if p == nil {
		return Login{}, &Refusal{Kind: KindToken, Text: fmt.Sprintf("there is no provider %.64q here", name)}
	}
	signed, err := token.Parse(raw, maxToken, p.algorithms)
	if err != nil {
		return Login{}, p.wrap(err)
	}
	return s.use(p, raw, signed, spki)
}

// use is Use with the provider, and with the token taken apart.
func (s *Set) use(p *provider, raw []byte, signed *token.Signed, spki []byte) (Login, error) {
	now := time.Now()
	if signed.Type != "" && !strings.EqualFold(signed.Type, "JWT") {
		return Login{}, p.refuse("typ", "the token is of another type (typ), and must be an ID token")
	}
	claims, err := s.verify(p, signed, now)
	if err != nil {
		return Login{}, err
	}
	issued, expires, err := p.checkID(claims, spki, now)
	if err != nil {
		return Login{}, err
	}
	l, err := p.login(claims)
	if err != nil {
		return Login{}, err
	}
	err = s.used.use(raw, issued, tooOld(issued, expires), now)
	if errors.Is(err, errUsed) {
		return Login{}, p.refuse("", "%v", err)
	}
	return l, err
}

// tooOld is when a token is refused for its age or its end, so that nobody needs to remember that it was used.
func tooOld(issued, expires time.Time) time.Time {
	if age := issued.Add(maxAge + late); age.Before(expires) {
		return age
	}
	return expires
}

// UseOf is Use for a token of which only the issuer tells the provider.
func (s *Set) UseOf(raw, spki []byte) (Login, error) {
	refused := error(&Refusal{Kind: KindToken, Claim: "iss", Text: "no provider here has the issuer and the algorithm of this token"})
	for p, signed := range s.of(raw, func(*provider) bool { return true }) {
		l, err := s.use(p, raw, signed, spki)
		if err == nil || !refuses(err) { // what the engine could not do is not hidden by what the next one says
			return l, err
		}
		refused = orKeys(refused, err)
	}
	return Login{}, refused
}

// of are those among the providers that have the issuer of a token, with the token taken apart. Of several, the first that takes it
// counts: they may ask for other claims, such as two repositories of GitHub's.
func (s *Set) of(raw []byte, among func(*provider) bool) iter.Seq2[*provider, *token.Signed] {
	return func(yield func(*provider, *token.Signed) bool) {
		var signed *token.Signed
		var issuer string
		for _, p := range *s.providers.Load() {
			if !among(p) {
				continue
			}
			if signed == nil {
				var err error
				if signed, err = token.Parse(raw, maxToken, algorithms()); err != nil {
					return
				}
				issuer = signed.Peek("iss")
			}
			if p.Issuer == issuer && slices.Contains(p.algorithms, signed.Algorithm) && !yield(p, signed) {
				return
			}
		}
	}
}

// orKeys is the refusal of the next provider, or an earlier one if that is for missing keys: with them the same token may be good.
func orKeys(before, next error) error {
	if r, ok := errors.AsType[*Refusal](before); ok && r.Kind == KindKeys {
		return before
	}
	return next
}

func (p *provider) wrap(err error) error {
	if r, ok := errors.AsType[*token.Refusal](err); ok {
		return p.from(r)
	}
	return err
}

// verify finds the key of a token and verifies its signature.
func (s *Set) verify(p *provider, signed *token.Signed, now time.Time) (map[string]any, error) {
	keys, err := p.source.keys(now, lookEvery)
	found := keys.find(signed.KeyID, signed.Algorithm)
	if len(found) == 0 || p.tooOld(keys, now) {
		keys, err = p.source.keys(now, lookSoon)
		found = keys.find(signed.KeyID, signed.Algorithm)
	}
	switch {
	case err != nil || p.tooOld(keys, now):
		return nil, s.noKeys(p, keys, err, now)
	case len(found) == 0 && p.source.fetched && now.Sub(keys.fetched) >= fetchEvery:
		if err := s.again.ask(now); err != nil {
			return nil, fmt.Errorf("cannot ask for the keys of %s: %w", p.Name, err)
		}
		return nil, &Refusal{
			Kind: KindKeys, Provider: p.Name, Claim: "kid", Text: fmt.Sprintf("the key of this token is unknown; the keys of %s are fetched again, so try again soon", p.Name),
		}
	case len(found) == 0:
		return nil, p.refuse("kid", "the token was signed with a key that %s does not publish (kid)", p.Name)
	}
	for _, k := range found {
		claims, e := signed.Claims(k.Key)
		if err = p.wrap(e); e == nil {
			return claims, nil
		}
	}
	return nil, err
}

func (p *provider) tooOld(keys keySet, now time.Time) bool {
	return p.source.fetched && p.KeysMaxAge > 0 && now.Sub(keys.fetched) > p.KeysMaxAge
}

// noKeys is the refusal where the keys are missing or too old. They are asked for.
func (s *Set) noKeys(p *provider, keys keySet, err error, now time.Time) error {
	text := fmt.Sprintf("cannot check logins of %s at the moment (its keys have not been fetched)", p.Name)
	switch {
	case err == nil:
		text = fmt.Sprintf("cannot check logins of %s at the moment (its keys are %s old)", p.Name, hours(now.Sub(keys.fetched)))
	case !p.source.fetched:
		text = fmt.Sprintf("cannot check logins of %s at the moment (its jwks_file cannot be used)", p.Name)
	}
	if p.source.fetched {
		if err := s.again.ask(now); err != nil {
			return fmt.Errorf("cannot ask for the keys of %s: %w", p.Name, err)
		}
	}
	return &Refusal{Kind: KindKeys, Provider: p.Name, Text: text}
}

func hours(d time.Duration) string {
	if d < time.Hour {
		return d.Truncate(time.Second).String()
	}
	return strconv.Itoa(int(d.Hours())) + " h"
}

// checkID checks the claims of an ID token that are about the token, and returns when it was issued and when it expires.
func (p *provider) checkID(claims map[string]any, spki []byte, now time.Time) (issued, expires time.Time, err error) {
	if err := p.checkParties(claims); err != nil {
		return issued, expires, err
	}
	if issued, expires, err = p.checkTimes(claims, now); err != nil {
		return issued, expires, err
	}
	if err := p.checkNonce(claims, spki); err != nil {
		return issued, expires, err
	}
	return issued, expires, p.checkRequire(claims)
}

// checkParties checks who made the token, and for whom.
func (p *provider) checkParties(claims map[string]any) error {
	iss, refusal := token.Text(claims, "iss")
	if refusal != nil {
		return p.from(refusal)
	}
	if iss != p.Issuer {
		return p.refuse("iss", "issuer is %s, and must be %s", printable(iss), p.Issuer)
	}
	if refusal := token.CheckAudience(claims, p.Audience); refusal != nil {
		return p.from(refusal)
	}
	if _, ok := claims["azp"]; !ok {
		return nil
	}
	want := p.ClientID
	if want == "" {
		want = p.Audience
	}
	azp, refusal := token.Text(claims, "azp")
	if refusal != nil {
		return p.from(refusal)
	}
	if azp != want {
		return p.refuse("azp", "the token was issued to %s, and must be issued to %s (azp)", printable(azp), want)
	}
	return nil
}

func (p *provider) checkTimes(claims map[string]any, now time.Time) (issued, expires time.Time, err error) {
	var refusal *token.Refusal
	if expires, refusal = token.Time(claims, "exp"); refusal != nil {
		return issued, expires, p.from(refusal)
	}
	if issued, refusal = token.Time(claims, "iat"); refusal != nil {
		return issued, expires, p.from(refusal)
	}
	switch {
	case !now.Before(expires):
		return issued, expires, p.refuse("exp", "the token expired at %s", expires.UTC().Format(time.RFC3339))
	case issued.After(now.Add(late)):
		return issued, expires, p.refuse("iat", "the token was issued in the future (iat)")
	case now.Sub(issued) > maxAge:
		return issued, expires, p.refuse("iat", "the token was issued more than 5 minutes ago (iat): log in again")
	}
	if _, ok := claims["nbf"]; ok {
		from, refusal := token.Time(claims, "nbf")
		if refusal != nil {
			return issued, expires, p.from(refusal)
		}
		if from.After(now.Add(late)) {
			return issued, expires, p.refuse("nbf", "the token is not good yet (nbf)")
		}
	}
	return issued, expires, nil
}

// Nonce is the nonce of a login through a browser whose certificate is to be for a public key.
func Nonce(spki []byte) string {
	sum := sha256.Sum256(spki)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// checkNonce checks that a token is for the key that its certificate is to be for. Only logins through a browser can have a nonce.
func (p *provider) checkNonce(claims map[string]any, spki []byte) error {
	if _, ok := claims["nonce"]; !ok {
		if p.Nonce {
			return p.refuse("nonce", "the token has no nonce, and logins of %s go through a browser only", p.Name)
		}
		return nil
	}
	nonce, refusal := token.Text(claims, "nonce")
	if refusal != nil {
		return p.from(refusal)
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte(Nonce(spki))) != 1 {
		return p.refuse("nonce", "the token was issued for another key (nonce)")
	}
	return nil
}

// checkRequire checks the claims that the configuration asks for, in their order, so the same token gets the same refusal.
func (p *provider) checkRequire(claims map[string]any) error {
	var names []string
	for name := range p.Require {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v, ok := claims[name]
		if !ok {
			return p.refuse(name, "the token has no %s, and must have %q", name, p.Require[name])
		}
		if got, ok := text(v); !ok || got != p.Require[name] {
			return p.refuse(name, "%s is %s, and must be %q", name, printable(got), p.Require[name])
		}
	}
	return p.checkPullRequest(claims)
}

// checkPullRequest refuses GitHub's tokens for jobs of pull requests, which may be of anybody's making, unless the configuration says of
// which events, refs or environments it takes tokens.
func (p *provider) checkPullRequest(claims map[string]any) error {
	u, err := url.Parse(p.Issuer)
	if err != nil || u.Hostname() != "token.actions.githubusercontent.com" && strings.TrimRight(u.Path, "/") != "/_services/token" {
		return nil
	}
	for _, name := range []string{"event_name", "ref", "environment", "sub"} {
		if _, ok := p.Require[name]; ok {
			return nil
		}
	}
	if event, _ := claims["event_name"].(string); strings.HasPrefix(event, "pull_request") {
		return p.refuse("event_name", "event_name is %s: require must name event_name, ref, environment or sub for that", printable(event))
	}
	return nil
}

// text returns a claim as it stands in the configuration: a text as it is, true, false, and whole numbers by their digits.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		if b, err := json.Marshal(v); err == nil && v == float64(int64(v)) {
			return string(b), true
		}
	}
	return "", false
}

// login returns whom a token is about.
func (p *provider) login(claims map[string]any) (Login, error) {
	l := Login{Provider: p.Name, Session: p.Session}
	v, ok := claims[p.SubjectClaim]
	if !ok {
		return Login{}, p.refuse(p.SubjectClaim, "the token has no %s", p.SubjectClaim)
	}
	if l.Subject, ok = text(v); !ok || !nameable(l.Subject, maxSubject) {
		return Login{}, p.refuse(p.SubjectClaim, "%s is not the name of a user", p.SubjectClaim)
	}
	if p.SubjectClaim == "email" {
		if verified, _ := claims["email_verified"].(bool); !verified {
			return Login{}, p.refuse("email_verified", "%s has not verified the e-mail address (email_verified)", p.Name)
		}
		l.Email = true
	}
	var err error
	l.Groups, err = p.groups(claims)
	return l, err
}

// groups returns the groups of a user: a list of texts, or one text. Where they are too many, or are not in the token (OpenID Connect Core
// 1.0, section 5.6.2), the login is refused: nobody would know why a user has only some of the roles.
func (p *provider) groups(claims map[string]any) ([]string, error) {
	if p.GroupsClaim == "" {
		return nil, nil
	}
	v, ok := claims[p.GroupsClaim]
	if !ok {
		if elsewhere, _ := claims["_claim_names"].(map[string]any); elsewhere[p.GroupsClaim] != nil {
			return nil, p.refuse(p.GroupsClaim, "the token has no %s, and says that they are elsewhere (_claim_names): have the provider put fewer into it", p.GroupsClaim)
		}
		return nil, nil
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	if len(list) > maxGroups {
		return nil, p.refuse(p.GroupsClaim, "%s names %d groups, and rtask takes %d: have the provider put fewer into the token", p.GroupsClaim, len(list), maxGroups)
	}
	var all []string
	for _, v := range list {
		group, ok := v.(string)
		if !ok || !nameable(group, maxGroup) {
			return nil, p.refuse(p.GroupsClaim, "%s has something that is not the name of a group", p.GroupsClaim)
		}
		all = append(all, group)
	}
	return all, nil
}

// nameable reports whether a text can name somebody: it is not empty or long, and every character of it can be seen.
func nameable(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || r == unicode.ReplacementChar })
}

// printable returns a text of a stranger's as it may stand in an error.
func printable(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
