package issuer

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/rtask/rtask/daemon/auth/authority"
	"github.com/rtask/rtask/daemon/auth/provider"
)

// The paths of enrolment. They are served without a client's certificate.
const (
	PathCA                  = "/ca"
	PathEnroll              = "/enroll"
	PathDeviceAuthorization = "/device_authorization"
	PathDeviceToken         = "/device_token"
	PathRenew               = "/renew"
)

// Enroller answers clients that have no certificate, or one that has expired: anybody. It is safe for concurrent use.
type Enroller struct {
	Authority *authority.Authority
	// URL is the issuer and audience of tokens.
	URL func() string
	// Providers are the OpenID providers whose users are taken; nil: none.
	Providers func() []Provider
	// Logins says who a provider's ID token is about.
	Logins *provider.Set
}

// kindServer is the kind of an error that is the engine's own (RFC 6749, section 4.1.2.1).
const kindServer = "server_error"

// Provider is what a client has to know of a provider. None of it is secret.
type Provider struct {
	Name      string   `json:"name"`
	Issuer    string   `json:"issuer"`
	ClientID  string   `json:"client_id,omitempty"`
	Audience  string   `json:"audience,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
	Login     []string `json:"login,omitempty"`
	DeviceURL string   `json:"device_authorization_url,omitempty"`
}

// Reply is an answer of HTTP, and what became of the request, for the audit trail.
type Reply struct {
	Status int
	Body   []byte // JSON
	// Identity is who got a certificate; nil: nobody did.
	Identity *authority.Identity
	// Proof is what was shown: "join", "device", "provider", "renewal"; "": nothing was decided. Name is what a device asks to be called.
	Proof, Name string
	// Kind and Reason are of a refusal.
	Kind, Reason string
	// Err is an error of the engine, for its log. The client is told no more than that there was one.
	Err error
}

// enrollment is the body of a request to PathEnroll.
type enrollment struct {
	CSR       string `json:"csr"`
	JoinToken string `json:"join_token"`
	Provider  string `json:"provider"`
	IDToken   string `json:"id_token"`
}

// Serve answers a request, from an address.
func (e *Enroller) Serve(path string, body []byte, remote string) Reply {
	switch path {
	case PathCA:
		return e.ca()
	case PathEnroll:
		var r enrollment
		if json.Unmarshal(body, &r) != nil {
			return notJSON("join")
		}
		return e.enroll(r, remote)
	case PathDeviceAuthorization:
		var r struct{ CSR, Name string }
		if json.Unmarshal(body, &r) != nil {
			return notJSON("device")
		}
		return e.device(r.CSR, r.Name, remote)
	case PathDeviceToken:
		var r struct {
			DeviceCode string `json:"device_code"`
		}
		if json.Unmarshal(body, &r) != nil {
			return notJSON("device")
		}
		issued, err := e.Authority.PollDevice(r.DeviceCode)
		return certificate("device", issued, err)
	case PathRenew:
		var r struct{ JWS string }
		if json.Unmarshal(body, &r) != nil {
			return notJSON("renewal")
		}
		issued, err := e.Authority.RenewExpired(r.JWS, remote)
		return certificate("renewal", issued, err)
	default:
		return refusal("", http.StatusNotFound, "not-found", "there is nothing at this path")
	}
}

// ca tells who this is, and how one logs in.
func (e *Enroller) ca() Reply {
	answer := struct {
		Name         string     `json:"name"`
		URL          string     `json:"url"`
		Certificates []string   `json:"certificates"`
		Providers    []Provider `json:"providers"`
	}{e.Authority.Name(), e.URL(), split(e.Authority.PEM()), []Provider{}}
	if e.Providers != nil {
		answer.Providers = append(answer.Providers, e.Providers()...)
	}
	return Reply{Status: http.StatusOK, Body: encode(answer)}
}

func (e *Enroller) enroll(r enrollment, remote string) Reply {
	switch {
	case r.JoinToken != "" && r.Provider == "" && r.IDToken == "":
		issued, err := e.Authority.Join(r.JoinToken, []byte(r.CSR), remote)
		return certificate("join", issued, err)
	case r.JoinToken == "" && r.Provider != "" && r.IDToken != "":
		return e.login(r, remote)
	default:
		return refusal("", http.StatusBadRequest, authority.KindBadRequest, "the request has either join_token, or provider and id_token")
	}
}

func (e *Enroller) login(r enrollment, remote string) Reply {
	const proof = "provider"
	csr, err := authority.ParseRequest([]byte(r.CSR))
	if err != nil {
		return failure(proof, err)
	}
	l, err := e.Logins.Use(r.Provider, []byte(r.IDToken), csr.Key)
	if err != nil {
		return loginFailure(proof, err)
	}
	issued, err := e.Authority.Issue([]byte(r.CSR), authority.Grant{
		Kind: authority.User, Provider: l.Provider, ProviderSubject: l.Subject, Email: l.Email, Groups: l.Groups, Life: l.Session, Proof: proof, Remote: remote,
	})
	return certificate(proof, issued, err)
}

func (e *Enroller) device(csr, name, remote string) Reply {
	d, err := e.Authority.StartDevice([]byte(csr), name, remote)
	if err != nil {
		r := certificate("device", authority.Issued{}, err)
		if r.Kind == authority.KindSlowDown {
			r.Status = http.StatusTooManyRequests
		}
		return r
	}
	return Reply{Status: http.StatusOK, Proof: "device", Name: name, Body: encode(struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		ExpiresIn  int64  `json:"expires_in"`
		Interval   int64  `json:"interval"`
	}{d.DeviceCode, d.UserCode, int64(d.Life / time.Second), int64(d.Interval / time.Second)})}
}

// certificate answers with a new certificate, or says why there is none.
func certificate(proof string, i authority.Issued, err error) Reply {
	if err != nil {
		return failure(proof, err)
	}
	return Reply{Status: http.StatusOK, Proof: proof, Identity: &i.Identity, Body: encode(struct {
		Certificate string   `json:"certificate"`
		Authorities []string `json:"authorities"`
		Identity    string   `json:"identity"`
		ExpiresAt   string   `json:"expires_at"`
	}{string(i.Certificate), split(i.Authorities), i.Identity.URI, i.Identity.Until.UTC().Format(time.RFC3339)})}
}

// failure answers with an error, in the form of RFC 6749, section 5.2.
func failure(proof string, err error) Reply {
	if r, ok := errors.AsType[*authority.Refusal](err); ok {
		return refusal(proof, statusOf(r.Kind), r.Kind, r.Text)
	}
	switch {
	case errors.Is(err, authority.ErrNone), errors.Is(err, authority.ErrLocked), errors.Is(err, authority.ErrFull):
		return refusal(proof, http.StatusServiceUnavailable, authority.KindUnavailable, "no certificates can be made here at the moment: "+err.Error())
	case errors.Is(err, authority.ErrBadName):
		return refusal(proof, http.StatusBadRequest, authority.KindBadRequest, err.Error())
	}
	r := refusal(proof, http.StatusInternalServerError, kindServer, "no certificate could be made")
	r.Err = err
	return r
}

// statusOf is the status of HTTP for a kind of refusal.
func statusOf(kind string) int {
	switch kind {
	case authority.KindJoinUsed:
		return http.StatusConflict
	case authority.KindJoinExpired:
		return http.StatusGone
	case authority.KindJoinUnknown, provider.KindToken, authority.KindUnknown, authority.KindExpired, authority.KindRevoked:
		return http.StatusUnauthorized
	case provider.KindKeys, authority.KindUnavailable:
		return http.StatusServiceUnavailable
	default: // those of RFC 8628 among them
		return http.StatusBadRequest
	}
}

func notJSON(proof string) Reply {
	return refusal(proof, http.StatusBadRequest, authority.KindBadRequest, "the body is not the JSON of such a request")
}

// refusal is an answer with an error.
func refusal(proof string, status int, kind, text string) Reply {
	return Reply{Status: status, Proof: proof, Kind: kind, Reason: text, Body: encode(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{kind, text})}
}

// TooMany answers who has guessed too often.
func TooMany() Reply {
	return refusal("device", http.StatusTooManyRequests, authority.KindSlowDown, "too many unknown codes came from this address; try again in a minute")
}

// split returns each certificate of a PEM text as one of its own.
func split(text []byte) []string {
	all := []string{}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		all = append(all, string(pem.EncodeToMemory(block)))
	}
}

// encode returns the JSON of a value. Those here are texts and numbers, which all have one.
func encode(value any) []byte {
	text, _ := json.Marshal(value)
	return text
}
