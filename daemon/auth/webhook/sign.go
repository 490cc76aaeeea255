package webhook

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Sign adds to a request what proves it, as its sender does: what Verify takes at that time. The id is that of Standard.
func Sign(s Scheme, secret string, r *Request, id string, now time.Time) {
	r.Headers = append(r.Headers, proofs(s, secret, r.Body, id, now)...)
}

// proofs are the headers that Sign adds.
func proofs(s Scheme, secret string, body []byte, id string, now time.Time) Headers {
	stamp := strconv.FormatInt(now.Unix(), 10)
	signed := func(parts ...[]byte) string { return hex.EncodeToString(sum([]byte(secret), parts...)) }
	switch s.Kind {
	case GitHub:
		return Headers{{"X-Hub-Signature-256", sha256Prefix + signed(body)}}
	case Gitea:
		return Headers{{"X-Gitea-Signature", signed(body)}}
	case Forgejo:
		return Headers{{"X-Forgejo-Signature", signed(body)}}
	case HMACSHA256:
		if s.Encoding == Base64 {
			return Headers{{s.Header, base64.StdEncoding.EncodeToString(sum([]byte(secret), body))}}
		}
		return Headers{{s.Header, signed(body)}}
	case GitLab:
		if !strings.HasPrefix(secret, standardPrefix) {
			return Headers{{"X-Gitlab-Token", secret}}
		}
		return signStandard(secret, body, id, stamp)
	case Standard:
		return signStandard(secret, body, id, stamp)
	case Slack:
		return Headers{{"X-Slack-Request-Timestamp", stamp}, {"X-Slack-Signature", "v0=" + signed([]byte("v0:"+stamp+":"), body)}}
	case Stripe:
		return Headers{{"Stripe-Signature", fmt.Sprintf("t=%s,v1=%s", stamp, signed([]byte(stamp+"."), body))}}
	default:
		return nil
	}
}

func signStandard(secret string, body []byte, id, stamp string) Headers {
	key, err := standardKey(secret)
	if err != nil {
		return nil // CheckSecret says so
	}
	signature := base64.StdEncoding.EncodeToString(sum(key, []byte(id+"."+stamp+"."), body))
	return Headers{{"webhook-id", id}, {"webhook-timestamp", stamp}, {"webhook-signature", "v1," + signature}}
}
