package webhook

import (
	"cmp"
	"slices"
)

// Sender is a row of the table: what rtask knows of who sends webhooks of a kind.
type Sender struct {
	Kind Kind
	// Title is what people call the sender, and Docs where it says what stands here.
	Title string
	Docs  []string

	// Signature is how the sender signs, nil if it does not. Secret is the header that has the secret itself: the only proof, or
	// instead of a signature. In Authorization it is a password of the scheme Basic (RFC 7617) or a token of Bearer (RFC 6750).
	Signature *Signature
	Secret    string
	// Time is where the time stands that is signed.
	Time Time

	// Event, ID and Refs are where the event stands, the sender's name for the delivery, and branches, tags and commits. Of
	// several places, the first that says something counts.
	Event []Place
	ID    []Place
	Refs  *Refs
	// Bodies has members that only bodies of certain events have, and what the names of these begin with. It is for events that
	// stand in a header, which no sender signs.
	Bodies map[string][]string
	// FormPayload says that the body may be a form whose field "payload" is what is meant.
	FormPayload bool
	// Example is an event as the sender names it, and for those that name refs one that does.
	Example string
	// Pings are the events that only try whether somebody is there. OpenPing is one that is not signed, and starts nothing.
	Pings    []string
	OpenPing string
	// Challenge is what is asked when a URL is registered.
	Challenge Challenge
	// Reply is what the sender wants to read of an accepted or ignored request, nil: rtask's own answer.
	Reply *Reply
	// Note is what a user has to know besides.
	Note string

	// read reads what no row can say, and toPerson is the answer that a person reads, nil: as Slack shows one.
	read     func(d *Delivery, r *Request, o object) error
	toPerson func(text string) *Reply
}

// Signature is how a sender signs.
type Signature struct {
	// Place is where it stands, in Encoding.
	Place    Place
	Hash     Hash
	Encoding Encoding
	// Prefix is what stands before each. Loose: it may be any of those that senders write, in any letter case, or none.
	Prefix string
	Loose  bool
	// Separators are the characters between several signatures, of which one that is good is enough. "": there is one.
	Separators string
	// Signed is what is signed, with {body}, {timestamp}, {id}, {url} and {form} for those parts of the request. {form} is each
	// field's name and value, in the order of names.
	Signed string
	// KeyPrefix begins secrets whose remainder is the key in base64. "": a secret is the key.
	KeyPrefix string
	// Ed25519 says that it is no HMAC but a signature with a private key (RFC 8032), and a secret the public one, in hex.
	Ed25519 bool
}

// Time is where a signed time stands, and in which unit since 1970 it is.
type Time struct {
	Place
	Unit Unit
}

// Unit is that of a time.
type Unit int

// The values of Unit.
const (
	Seconds Unit = iota
	Milliseconds
	// SecondsOrMilliseconds is either: the number says which, since both are near to now only in this age.
	SecondsOrMilliseconds
)

// Refs are where a body names branches, tags and commits. All paths are those in a change.
type Refs struct {
	// List is the array of changes, nil: the body is the only one.
	List []string
	// Ref is the name, which is in full unless Types has what to put before it for each text that may stand at Type.
	Ref, Type [][]string
	Types     map[string]string
	// Commit is at which commit it is now. At a deletion, Zero is a commit of zeros, or Gone has the JSON GoneIs.
	Commit [][]string
	Zero   []string
	Gone   []string
	GoneIs string
}

// Challenge is a GET request whose parameter Query is to be repeated.
type Challenge struct {
	Query string
	// Mode is a parameter that has to be ModeIs.
	Mode, ModeIs string
	// Token is a parameter that has to be a text that the user has told the sender.
	Token string
}

// Reply is an answer in a form that a sender wants.
type Reply struct {
	Status      int
	ContentType string
	Body        string
}

// Proofs are the headers of a scheme's requests that prove who sent them, and say nothing else.
func (s Scheme) Proofs() []string {
	row := s.sender()
	if row == nil {
		return nil
	}
	var names []string
	if row.Secret != "" {
		names = append(names, row.Secret)
	}
	if row.Signature != nil {
		names = append(names, row.Signature.Place.Header...)
	}
	return names
}

// Senders returns every row of the table, Token first.
func Senders() []Sender { return slices.Clone(table[:]) }

// SenderOf returns the row of a kind.
func SenderOf(k Kind) (Sender, bool) {
	if s := rowOf(k); s != nil {
		return *s, true
	}
	return Sender{}, false
}

// rowOf returns the row of a kind, or nil. Nobody changes it.
func rowOf(k Kind) *Sender {
	for i := range table {
		if table[i].Kind == k {
			return &table[i]
		}
	}
	return nil
}

// sender is the row that a scheme is of, with what the configuration says of it, or nil.
func (s Scheme) sender() *Sender {
	row := rowOf(s.Kind)
	if row == nil {
		return nil
	}
	switch s.Kind {
	case HMACSHA256:
		row = row.with(func(sig *Signature) { sig.Place, sig.Encoding = header(s.Header), s.Encoding })
	case Grafana:
		if s.Time != nil {
			row = row.with(func(sig *Signature) { sig.Signed = "{timestamp}:{body}" })
			row.Time = *s.Time
		}
	case HMAC:
		row = row.with(func(sig *Signature) {
			sig.Place, sig.Encoding, sig.Prefix = header(s.Header), s.Encoding, s.Prefix
			sig.Hash, sig.Signed = cmp.Or(s.Hash, SHA256), cmp.Or(s.Signed, "{body}")
		})
		if s.Time != nil {
			row.Time = *s.Time
		}
		if s.ID != nil {
			row.ID = []Place{*s.ID}
		}
	}
	return row
}

// with returns a copy of a row with another signature.
func (s *Sender) with(change func(*Signature)) *Sender {
	other, sig := *s, *s.Signature
	change(&sig)
	other.Signature = &sig
	return &other
}

// SignsID reports whether the signature covers the id at one of its places.
func (s *Sender) signsID(p Place) bool {
	switch {
	case s.Signature == nil:
		return false
	case len(p.Body) > 0:
		return s.signs("{body}") || s.signs("{id}")
	default:
		return s.signs("{id}")
	}
}
