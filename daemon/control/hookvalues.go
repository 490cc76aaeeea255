package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rtask/rtask/daemon/auth/webhook"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/expression"
)

const (
	// maxValues is how many bytes the variables that a webhook sets may have together.
	maxValues = 256 << 10
	// maxEvaluations is how many requests are evaluated at a time: each may take 100 MB.
	maxEvaluations = 4
)

// locate sets what a request says happened, where the configuration says where that stands. A filter for what it does not say is a
// reason to skip it.
func (h *hook) locate(in *expression.Input) error {
	w, d := h.webhook, h.delivery
	event, noEvent, err := said(in, w.Event)
	if err != nil {
		return err
	}
	ref, noRef, err := said(in, w.Ref)
	if err != nil {
		return err
	}
	id, _, err := said(in, w.ID)
	if err != nil {
		return err
	}
	if w.Event != nil {
		d = d.WithEvent(event)
	}
	if w.Ref != nil {
		d = d.WithRef(ref)
	}
	if w.ID != nil {
		d = d.WithID(id, signedID(w))
	}
	switch {
	case d.Ping:
	case noEvent != "" && len(w.Events) > 0:
		h.skip = noEvent
	case noRef != "" && len(w.Refs) > 0:
		h.skip = noRef
	}
	h.delivery, in.Event, in.Ref = d, d.Event, d.Ref
	return nil
}

// said is what an expression comes to that says where something stands, or why there is nothing.
func said(in *expression.Input, e *expression.Expression) (text, missing string, err error) {
	if e == nil {
		return "", "", nil
	}
	text, err = e.Text(in)
	if errors.Is(err, expression.ErrMissing) {
		return "", err.Error(), nil
	}
	return text, "", err
}

// signedID reports whether the id of a webhook's requests stands in what is signed, where the configuration says.
func signedID(w *config.Webhook) bool { return w.ID != nil && w.ID.OfBody() && w.Scheme.SignsBody() }

// repeatsOf is what repeats of a request are known by.
func (h *hook) repeatsOf(p webhook.Proof) webhook.Proof {
	if signedID(h.webhook) {
		return p.OfSigned(h.delivery.ID)
	}
	return p.WithID(h.delivery)
}

// evaluate decides on a request by the webhook's expressions, and returns the values that they take out of it. Only a few requests at
// a time are evaluated, since what an evaluation reads of a body takes many times the memory that the body takes.
func (s *Server) evaluate(h *hook) (env []string, params []config.Parameter, err error) {
	all := h.webhook.Expressions()
	if len(all) > 0 {
		s.evaluations <- struct{}{}
		defer func() { <-s.evaluations }()
	}
	in := expression.NewInput(h.request, h.delivery, all...)
	if h.skip, err = h.decide(in); err != nil || h.skip != "" {
		return nil, nil, err
	}
	return h.values(in)
}

// decide returns why a request is not for the webhook, or "".
func (h *hook) decide(in *expression.Input) (string, error) {
	if err := h.locate(in); err != nil || h.skip != "" {
		return h.skip, err
	}
	if skip := h.delivery.Skip(h.webhook.Wanted); skip != "" || h.webhook.When == nil {
		return skip, nil
	}
	return h.webhook.When.Reason(in)
}

// values are the variables and the parameters that a webhook's configuration takes out of a request.
func (h *hook) values(in *expression.Input) (env []string, params []config.Parameter, err error) {
	size := 0
	for _, one := range h.webhook.Environment {
		value, err := one.Text(in)
		if err != nil {
			return nil, nil, err
		}
		if size += len(one.Name) + len(value); size > maxValues {
			return nil, nil, fmt.Errorf("the values of environment have more than %d bytes together", maxValues)
		}
		env = append(env, one.Name+"="+value)
	}
	for _, one := range h.webhook.Params {
		value, err := one.Text(in)
		if err != nil {
			return nil, nil, err
		}
		params = append(params, config.Parameter{Name: one.Name, Value: value})
	}
	return env, params, nil
}

// replaced is an environment with variables in place of those of the same names: of two, a program may see either.
func replaced(env, with []string) []string {
	return slices.Concat(slices.DeleteFunc(slices.Clone(env), func(old string) bool {
		name, _, _ := strings.Cut(old, "=")
		return slices.ContainsFunc(with, func(one string) bool { return strings.HasPrefix(one, name+"=") })
	}), with)
}
