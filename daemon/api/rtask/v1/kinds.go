package rtaskv1

import "net/http"

// Kind is a kind of error: the stable word of the HTTP API's problem documents, of Error in rtask.proto, and of RTASK_KIND= in
// the journal.
type Kind string

// The kinds.
const (
	KindUnauthorized         Kind = "unauthorized"
	KindSignature            Kind = "signature"
	KindForbidden            Kind = "forbidden"
	KindNotFound             Kind = "not-found"
	KindMethodNotAllowed     Kind = "method-not-allowed"
	KindConflict             Kind = "conflict"
	KindReplay               Kind = "replay"
	KindInputTooLarge        Kind = "input-too-large"
	KindUnsupportedMediaType Kind = "unsupported-media-type"
	KindRateLimited          Kind = "rate-limited"
	KindConcurrency          Kind = "concurrency"
	KindQueueFull            Kind = "queue-full"
	KindBadRequest           Kind = "bad-request"
	KindUnavailable          Kind = "unavailable"
	KindDisabled             Kind = "disabled"
	KindConfiguration        Kind = "configuration"
	// KindWorkingDirectory: a command was given a working directory that it cannot have. It is not of the HTTP API.
	KindWorkingDirectory Kind = "working-directory"
	// What is wrong with a client's certificate: there is none, no authority that is trusted has signed it, it has expired or is not
	// valid yet, it was revoked, its key, its purpose or its chain is not good enough.
	KindCertificateMissing Kind = "certificate-missing"
	KindCertificateUnknown Kind = "certificate-unknown"
	KindCertificateExpired Kind = "certificate-expired"
	KindCertificateRevoked Kind = "certificate-revoked"
	KindCertificateBad     Kind = "certificate-bad"
	// KindCertificateCRL: the list that would say whether it was revoked is out of date, or cannot be read.
	KindCertificateCRL Kind = "certificate-crl"
	// KindCertificate: what is under way ends since the certificate was revoked, or is not good any more for another reason than its time.
	KindCertificate Kind = "certificate"
	// What is wrong with a client's token: there is none, it was good once, it was made for another certificate, it never was good. With
	// another token the first three are no more.
	KindTokenMissing Kind = "token-missing"
	KindTokenExpired Kind = "token-expired"
	KindTokenBinding Kind = "token-binding"
	KindTokenInvalid Kind = "token-invalid"
	// KindRole: the client's roles do not allow it.
	KindRole Kind = "role"
	// KindProviderKeys: the keys of the provider that vouches for the client are out of date.
	KindProviderKeys Kind = "provider-keys"
	// KindTLS: no client with a certificate speaks like this: no TLS, or an old version.
	KindTLS Kind = "tls"
)

// OfHandshake reports whether a TLS handshake can be refused with this kind.
func (k Kind) OfHandshake() bool {
	switch k {
	case KindCertificateMissing, KindCertificateUnknown, KindCertificateExpired, KindCertificateRevoked, KindCertificateBad, KindTLS:
		return true
	default:
		return false
	}
}

// HTTPStatus is the status of the HTTP API's reply.
func (k Kind) HTTPStatus() int {
	switch k {
	case KindUnauthorized, KindSignature, KindCertificateMissing, KindCertificateUnknown, KindCertificateExpired, KindCertificateRevoked, KindCertificateBad,
		KindCertificateCRL, KindCertificate, KindTokenMissing, KindTokenExpired, KindTokenBinding, KindTokenInvalid:
		return http.StatusUnauthorized
	case KindForbidden, KindRole:
		return http.StatusForbidden
	case KindNotFound:
		return http.StatusNotFound
	case KindMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case KindConflict, KindReplay:
		return http.StatusConflict
	case KindInputTooLarge:
		return http.StatusRequestEntityTooLarge
	case KindUnsupportedMediaType:
		return http.StatusUnsupportedMediaType
	case KindRateLimited, KindConcurrency, KindQueueFull:
		return http.StatusTooManyRequests
	case KindBadRequest:
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}
