package authority

import (
	"errors"
	"fmt"
)

// The kinds of refusals: the stable words of the API's errors and of RTASK_KIND= in the journal.
const (
	KindUnknown  = "certificate-unknown"
	KindExpired  = "certificate-expired"
	KindRevoked  = "certificate-revoked"
	KindStaleCRL = "certificate-crl" // the list that would say whether it was revoked is too old or cannot be read

	KindJoinUnknown = "join-unknown"
	KindJoinUsed    = "join-used"
	KindJoinExpired = "join-expired"
	KindBadRequest  = "bad-request"
	KindUnavailable = "unavailable"

	// Those of a device's polls are RFC 8628's (section 3.5).
	KindPending  = "authorization_pending"
	KindSlowDown = "slow_down"
	KindDenied   = "access_denied"
	KindOver     = "expired_token"
	KindNoCode   = "invalid_grant" // RFC 6749, section 5.2
)

// Refusal is returned for what a client may not have. Its text is for the client, one sentence.
type Refusal struct {
	Kind, Text string
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

func refuse(kind, format string, args ...any) error {
	return &Refusal{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

var (
	// ErrNone is returned when there is no authority yet.
	ErrNone = errors.New("there is no authority")

	// ErrExists is returned by Init when there is one.
	ErrExists = errors.New("there is an authority already")

	// ErrLocked is returned for what needs the authority's key while the engine does not have it.
	ErrLocked = errors.New("the authority's key is not there")

	// ErrOtherKey is returned for a key that is not the authority's.
	ErrOtherKey = errors.New("this is not the authority's key")

	// ErrBadKey is returned for what is no key of an authority.
	ErrBadKey = errors.New("an authority's key is one of ECDSA over P-256, PKCS #8 in PEM")

	// ErrBadName is returned for a name of a trust domain or of an identity that cannot be.
	ErrBadName = errors.New("bad name")

	// ErrNoSuch is returned when nothing has the name, the serial or the code asked for.
	ErrNoSuch = errors.New("nothing of that name")

	// ErrAmbiguous is returned when it could mean several.
	ErrAmbiguous = errors.New("this could mean several")

	// ErrFull is returned when the limit on certificates or join tokens is reached.
	ErrFull = errors.New("too many certificates are on record")
)
