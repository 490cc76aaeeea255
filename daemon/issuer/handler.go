package issuer

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxBody is the most bytes of a request: an ID token and room for the rest.
	maxBody = 64 << 10
	// bodyTime is how long a body may take to come.
	bodyTime = 10 * time.Second
)

// Handler serves the paths. Each request must have a Client in its context: whoever mounts it has checked the certificate.
func (o *OAuth) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathMetadata, func(w http.ResponseWriter, _ *http.Request) { write(w, o.metadata()) })
	mux.HandleFunc("GET "+PathJWKS, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Write(o.Tokens.JWKS())
	})
	mux.HandleFunc("GET "+PathCRL, o.serveCRL)
	mux.HandleFunc("POST "+PathToken, o.with(func(r *http.Request, c Client, body []byte) Reply {
		if f, reply, ok := parseForm(r, body); !ok {
			return reply
		} else {
			return o.token(c, f)
		}
	}))
	mux.HandleFunc("POST "+PathRenew, o.with(func(r *http.Request, c Client, body []byte) Reply {
		var request struct {
			CSR string `json:"csr"`
		}
		if !isType(r, "application/json") || json.Unmarshal(body, &request) != nil {
			return notJSON("renewal")
		}
		return o.renew(c, request.CSR)
	}))
	mux.HandleFunc("POST "+PathRevoke, o.with(func(r *http.Request, c Client, body []byte) Reply {
		if !isType(r, formType) {
			return o.revoke(r.Context(), c)
		}
		f, reply, ok := parseForm(r, body)
		switch {
		case !ok:
			return reply
		case f.has("token"):
			return o.revokeToken(c, f.get("token"))
		}
		return o.revoke(r.Context(), c)
	}))
	return mux
}

// with reads the body of a request of a known client, answers it, and tells the audit trail.
func (o *OAuth) with(answer func(*http.Request, Client, []byte) Reply) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(clientKey{}).(Client)
		if !ok { // which would be a fault of this program
			write(w, refusal("", http.StatusUnauthorized, kindClient, "there is no client certificate"))
			return
		}
		// Without a deadline the client could keep the stream for ever; where there is none to set, the connection has one.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		reply := refusal("", http.StatusBadRequest, kindRequest, "the body is longer than 64 KiB, or did not come within 10 seconds")
		if err == nil {
			reply = answer(r, c, body)
		}
		o.Audit(c, reply)
		write(w, reply)
	}
}

func (o *OAuth) serveCRL(w http.ResponseWriter, _ *http.Request) {
	der, err := o.Authority.CRL()
	if err != nil {
		write(w, failure("", err))
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl") // RFC 2585, section 4.2
	w.Header().Set("Cache-Control", "max-age=300")
	w.Write(der)
}

// write sends an answer. Those with a secret in them must not be kept (RFC 6749, section 5.1), and none is worth to be.
func write(w http.ResponseWriter, r Reply) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(r.Status)
	w.Write(r.Body)
}

const formType = "application/x-www-form-urlencoded"

func isType(r *http.Request, want string) bool {
	got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && got == want
}

// form is the body of a request for a token. Every parameter occurs at most once (RFC 6749, section 3.2).
type form map[string]string

func (f form) get(name string) string { return f[name] }

// has reports whether a parameter is there with a value: one without is treated as left out (RFC 6749, section 3.2).
func (f form) has(name string) bool { return f[name] != "" }

// parseForm reads a form out of a body. Parameters in the URL would be written to logs on the way, so none may be there.
func parseForm(r *http.Request, body []byte) (form, Reply, bool) {
	bad := func(text string) (form, Reply, bool) {
		return nil, refusal("token", http.StatusBadRequest, kindRequest, text), false
	}
	switch {
	case !isType(r, formType):
		return bad("the body must be a form: Content-Type: " + formType)
	case r.URL.RawQuery != "":
		return bad("parameters belong in the body, not in the URL")
	case r.Header.Get("Authorization") != "":
		return bad("the certificate is what proves who the client is: leave out Authorization")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return bad("the body is not a form")
	}
	f := form{}
	for name, all := range values {
		if len(all) > 1 {
			return bad("a parameter occurs twice")
		}
		f[name] = all[0]
	}
	return f, Reply{}, true
}
