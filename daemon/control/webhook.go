package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/daemon/jobid"
)

const (
	// idSeen is how long a signed id is known: longer than senders go on trying.
	idSeen = 30 * 24 * time.Hour
	// bodySeen is how long an id or a body is known, where a repeat of it is refused, since its signature may never age.
	bodySeen = 365 * 24 * time.Hour
	// outlives is for how long a signed time is known after its tolerance. It is more than a request ever takes, and than the clock
	// is off when a machine starts.
	outlives = 24 * time.Hour
)

// hook is a request to a webhook, and what is known of it so far.
type hook struct {
	// call is the sender's, or that of the local user who tries the webhook.
	call    *call
	task    *config.Task
	webhook *config.Webhook
	request *webhook.Request
	// tooLarge says that the body is missing for its size.
	tooLarge bool
	// secrets are those of a sample where the webhook's own sign nothing.
	secrets []string
	// user is the local user who tries it.
	user string
	id   string // of the job; "": the engine makes one
	// proven says that its signature, or its token, is good, and proof is how.
	proven bool
	proof  webhook.Proof

	// delivery is what it says, once that is read.
	delivery webhook.Delivery
	read     bool
	// skip is why it is to be ignored, or "". spec is what to run otherwise.
	skip string
	spec job.Spec
}

// decided is the entry for a decision about h.
func (h *hook) decided(what string) decision {
	id := h.delivery.ID
	if id == "" {
		id = webhook.ID(h.webhook.Scheme.Kind, h.request.Headers)
	}
	d := h.call.decision()
	d.decision, d.action, d.task, d.user = what, actionStart, h.task.Name, h.user
	d.delivery, d.stranger = cut(id, longestTask), !h.proven && h.user == ""
	return d
}

// findWebhook returns what a URL's last part is of. What is wrong is not told with the part itself, which may be a token with a
// slip in it.
func (s *Server) findWebhook(c *call, hash string) (*hook, error) {
	cfg := c.snapshot.Config
	if cfg == nil {
		err := fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, errors.New("the configuration has errors, so there are no webhooks"))
		return nil, s.refuseHook(decision{remote: c.Remote, stranger: true}, err, "")
	}
	t, w := cfg.Webhook(hash, s.ReadSecret)
	if w == nil {
		err := fail(connect.CodeNotFound, rtaskv1.KindNotFound, errors.New("there is no webhook at this URL"))
		return nil, s.refuseHook(decision{remote: c.Remote, reason: "there is no webhook at its URL", stranger: true}, err, "")
	}
	return &hook{call: c.sending(w), task: t, webhook: w, request: &webhook.Request{}}, nil
}

// refuseHook counts and logs a refusal, and returns it.
func (s *Server) refuseHook(d decision, err error, task string) error {
	d.decision, d.action, d.kind = refused, actionStart, kindOf(err)
	if d.reason == "" {
		d.reason = errorText(err)
	}
	s.Rejected(task, string(d.kind))
	if d.webhook != "" {
		s.Requested(task, d.webhook, string(d.kind))
	}
	s.audit(d)
	return err
}

// hookLimit is how many bytes of body a webhook takes.
func hookLimit(w *config.Webhook) int64 { return w.MaxInputBytes }

func tooLargeFor(w *config.Webhook) error {
	return fail(connect.CodeInvalidArgument, rtaskv1.KindInputTooLarge, fmt.Errorf("this webhook takes a body of at most %d bytes (max_input_bytes)", hookLimit(w)))
}

// Webhook implements GatewayService: the whole decision about a webhook.
func (s *Server) Webhook(ctx context.Context, r *rtaskv1.WebhookRequest) (*rtaskv1.WebhookResponse, error) {
	c := callOf(ctx)
	if r.Again {
		if answer, err := s.resultAgain(ctx, c, r); answer != nil || err != nil {
			return answer, err
		}
	}
	h, answer, err := s.received(c, r)
	if answer != nil || err != nil {
		return answer, err
	}
	return s.runHook(ctx, h)
}

// runHook runs what a request is for, and answers it.
func (s *Server) runHook(ctx context.Context, h *hook) (*rtaskv1.WebhookResponse, error) {
	wait := h.waits()
	if wait {
		done, err := s.watchHook(h)
		if err != nil {
			s.settleDelivery(h, err)
			return h.failed(s.refuseHook(h.decided(refused), err, h.task.Name))
		}
		defer done()
	}
	result, err := s.run(ctx, wait, h.spec, h.decided(accepted))
	s.settleDelivery(h, err)
	s.count(h.task, h.webhook.Name, err)
	if err != nil {
		return h.failed(err)
	}
	return h.accepted(reply(wait, result)), nil
}

// received decides on a request. It returns the answer, or an error, where nothing is to be run. What is run has to be settled, see
// settleDelivery.
func (s *Server) received(c *call, r *rtaskv1.WebhookRequest) (*hook, *rtaskv1.WebhookResponse, error) {
	h, err := s.findWebhook(c, r.Hash)
	if err != nil {
		return nil, nil, err
	}
	h.request, h.tooLarge, h.id = hookRequest(h.call, r), r.BodyTooLarge, r.Id
	if h.id == "" { // from a gateway that gives its requests none
		h.id = jobid.New()
	}
	if methods := methodsOf(h.webhook); !slices.Contains(methods, h.request.Method) {
		return nil, nil, s.refuseHook(h.decided(refused), wrongMethod(methods), h.task.Name)
	}
	if answer, err := s.greeting(h); answer != nil || err != nil {
		return nil, answer, err
	}
	if reason, err := s.judge(h); err != nil {
		d := h.decided(refused)
		d.reason = reason
		s.keepDelivery(h, refused, err)
		answer, err := h.failed(s.refuseHook(d, err, h.task.Name))
		return nil, answer, err
	}
	if h.skip != "" {
		d := h.decided(ignored)
		d.reason = h.skip
		s.audit(d)
		s.Requested(h.task.Name, h.webhook.Name, ignored)
		s.keepDelivery(h, ignored, nil)
		m := &rtaskv1.WebhookResponse{Challenge: h.delivery.Challenge, Reason: h.skip, Reply: ownReply(h.delivery.Reply)}
		return nil, h.toPerson(m, "Nothing to do: "+h.skip+"."), nil
	}
	s.keepDelivery(h, accepted, nil)
	return h, nil, nil
}

// judge decides on a request and changes nothing but h: the signature first, over the bytes as they came, then what the request
// says. An error is for the requester, and the reason, if there is one, for the log alone.
func (s *Server) judge(h *hook) (reason string, err error) {
	secrets, err := h.webhook.Secrets(s.ReadSecret)
	if err != nil && h.webhook.Scheme.Kind.Signed() {
		return "", fail(connect.CodeUnavailable, rtaskv1.KindConfiguration, fmt.Errorf("webhook %q of task %q: %w", h.webhook.Name, h.task.Name, err))
	}
	if h.tooLarge || int64(len(h.request.Body)) > hookLimit(h.webhook) {
		return "", tooLargeFor(h.webhook)
	}
	if h.secrets != nil {
		secrets = h.secrets
	}
	now := time.Now() // for all that is asked of this request
	proof, err := webhook.Verify(h.webhook.Scheme, secrets, h.request, now)
	if err != nil {
		// Whoever it is learns no more than that.
		return err.Error(), fail(connect.CodeUnauthenticated, rtaskv1.KindSignature, errors.New("the signature is missing or wrong"))
	}
	h.proven, h.proof = true, proof
	err = s.consider(h)
	if h.delivery.Ping {
		h.delivery.Reply = webhook.Answer(h.webhook.Scheme, secrets, h.request, h.delivery, now)
	}
	if err != nil || h.skip != "" {
		return "", err
	}
	h.spec.Once = once(h.webhook, h.repeatsOf(proof), now)
	return "", nil
}

// consider decides on what a request says that has proven itself. The error is for the requester.
func (s *Server) consider(h *hook) (err error) {
	if err := encoded(h.request.Headers.Values("Content-Encoding")); err != nil {
		return err
	}
	if h.delivery, err = webhook.Read(h.webhook.Scheme, h.request); err != nil {
		return badRequest("%w", err)
	}
	h.delivery, h.read = h.delivery.Choose(h.webhook.Wanted), true
	values, params, err := s.evaluate(h)
	if err != nil {
		return badRequest("%w", err)
	}
	if h.skip != "" {
		return nil
	}
	if h.spec, err = s.requestSpec(h.call.snapshot, h.task, request{owner: h.call.owner(), trigger: "webhook", params: params}); err != nil {
		return err
	}
	h.spec.ID, h.spec.Input = h.id, h.delivery.Payload
	// A push to one branch is never part of another one's run, nor one to several of that to one of them, and nothing is known of
	// what says no branch.
	h.spec.Same = ""
	if h.delivery.Ref != "" && len(h.delivery.Changes) < 2 {
		h.spec.Same = "webhook " + digest([]byte(h.webhook.Name), []byte(h.delivery.Event), []byte(h.delivery.Ref))
	}
	env := append(headerEnvironment(h.task, h.request.Headers), h.delivery.Environment(h.webhook.Wanted.Events)...)
	h.spec.Retry.Given = replaced(slices.Concat(h.spec.Retry.Given, env), values)
	h.spec.Env = replaced(slices.Concat(h.spec.Env, env), values)
	return nil
}

// once is what a request may be done once for. A repeat of what has a signed id or time is answered as the first one was: many
// senders switch a URL off that answers with errors.
func once(w *config.Webhook, p webhook.Proof, now time.Time) job.Once {
	until := p.Until.Add(outlives)
	switch {
	case p.Fresh && !p.Until.IsZero():
	case w.RefuseRepeats:
		until = now.Add(bodySeen)
	case p.Fresh:
		until = now.Add(idSeen)
	default:
		return job.Once{}
	}
	return job.Once{Key: strings.Join([]string{"webhook", w.Task, w.Name, p.Key}, "/"), Until: until, At: now, Answer: p.Fresh}
}

// headerEnvironment is what a job is told of a request's headers. One that is there several times is a list (RFC 9110, section
// 5.3).
func headerEnvironment(t *config.Task, h webhook.Headers) []string {
	var env []string
	for _, name := range t.PassRequestHeaders {
		if values := h.Values(name); len(values) > 0 {
			env = append(env, config.HeaderVariable(name)+"="+strings.Join(values, ", "))
		}
	}
	return env
}

// ListWebhooks implements JobService.
func (s *Server) ListWebhooks(ctx context.Context, _ *rtaskv1.ListWebhooksRequest) (*rtaskv1.ListWebhooksResponse, error) {
	snapshot := callOf(ctx).snapshot
	if snapshot.Config == nil {
		return nil, configurationError(snapshot)
	}
	base, hint := s.baseURL(ctx, snapshot.Config)
	reply := &rtaskv1.ListWebhooksResponse{Hint: hint}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Config.Tasks)) {
		for _, w := range snapshot.Config.Tasks[name].Webhooks {
			reply.Webhooks = append(reply.Webhooks, s.webhookMessage(base, w))
		}
	}
	return reply, nil
}

// webhookMessage is a webhook whose URL begins with base.
func (s *Server) webhookMessage(base string, w *config.Webhook) *rtaskv1.Webhook {
	m := &rtaskv1.Webhook{Task: w.Task, Name: w.Name, Verify: string(w.Scheme.Kind)}
	if hash := w.Hash(s.ReadSecret); hash != "" {
		m.Url = base + "/wh/" + hash
	}
	// A task that cannot run now is no problem of its webhooks: `rtaskctl tasks` shows it.
	if _, err := w.Secrets(s.ReadSecret); err != nil {
		m.Problem = err.Error()
	}
	return m
}
