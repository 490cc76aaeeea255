package rtaskv1

import "net/http"

// Word is the reason as the HTTP API and rtaskctl write it, such as "exit-code"; "" for none. A reason that only a newer
// engine knows is "lost": how the job ended cannot be said.
func (r Reason) Word() string {
	switch r {
	case Reason_REASON_UNSPECIFIED:
		return ""
	case Reason_REASON_EXIT_CODE:
		return "exit-code"
	case Reason_REASON_SIGNAL:
		return "signal"
	case Reason_REASON_TIMEOUT:
		return "timeout"
	case Reason_REASON_OOM:
		return "oom"
	case Reason_REASON_STOPPED:
		return "stopped"
	case Reason_REASON_SETUP:
		return "setup"
	default:
		return "lost"
	}
}

// HTTPStatus is the status of the HTTP API's reply for each kind of error.
func HTTPStatus(kind string) int {
	switch kind {
	case "unauthorized", "signature":
		return http.StatusUnauthorized
	case "forbidden":
		return http.StatusForbidden
	case "not-found":
		return http.StatusNotFound
	case "conflict", "replay":
		return http.StatusConflict
	case "input-too-large":
		return http.StatusRequestEntityTooLarge
	case "unsupported-media-type":
		return http.StatusUnsupportedMediaType
	case "rate-limited", "concurrency", "queue-full":
		return http.StatusTooManyRequests
	case "bad-request":
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}
