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
)

// HTTPStatus is the status of the HTTP API's reply.
func (k Kind) HTTPStatus() int {
	switch k {
	case KindUnauthorized, KindSignature:
		return http.StatusUnauthorized
	case KindForbidden:
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
