package control

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// request is what a caller says of one run of a task.
type request struct {
	owner   job.Owner
	trigger string
	input   []byte
	params  []config.Parameter
	headers []*rtaskv1.Header
}

// requestSpec is what a run of a task is for a request: taskSpec, and what the request says in words of its own. That never
// becomes an argument.
func (s *Server) requestSpec(in Snapshot, t *config.Task, r request) (job.Spec, error) {
	js, err := s.taskSpec(in, t, r.owner, r.trigger, r.input)
	if err != nil {
		return js, err
	}
	env, err := t.Parameters(r.params)
	if err != nil {
		return job.Spec{}, badRequest("task %q: %w", t.Name, err)
	}
	js.Retry.Given = slices.Concat(env, headerVariables(t, r.headers))
	js.Env = slices.Concat(js.Env, js.Retry.Given)
	js.Same = "request " + digest([]byte(strings.Join(env, "\x00")))
	return js, nil
}

// headerVariables are the headers that a task wants of a request, as NAME=value. Several of one name are one, as RFC 9110,
// section 5.2, joins them.
func headerVariables(t *config.Task, headers []*rtaskv1.Header) []string {
	var env []string
	for _, name := range t.PassRequestHeaders {
		var values []string
		for _, h := range headers {
			if strings.EqualFold(h.GetName(), name) {
				values = append(values, string(h.GetValue()))
			}
		}
		if values != nil {
			env = append(env, config.HeaderVariable(name)+"="+strings.Join(values, ", "))
		}
	}
	return env
}

func badRequest(format string, args ...any) error {
	return fail(connect.CodeInvalidArgument, rtaskv1.KindBadRequest, fmt.Errorf(format, args...))
}

// queryParameters reads the parameters out of a query as it was sent, in its order of names.
func queryParameters(query string) ([]config.Parameter, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, badRequest("%w", errors.New("the query is not NAME=VALUE&…, with what is no letter or digit as %XX"))
	}
	var all []config.Parameter
	for name, list := range values {
		for _, value := range list {
			all = append(all, config.Parameter{Name: name, Value: value})
		}
	}
	return all, nil
}

// messageParameters are those of a call on the control socket.
func messageParameters(all []*rtaskv1.Parameter) []config.Parameter {
	var params []config.Parameter
	for _, p := range all {
		params = append(params, config.Parameter{Name: p.GetName(), Value: p.GetValue()})
	}
	return params
}
