package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// DryRun implements JobService: every decision about a request but that of admission, which depends on the moment.
func (s *Server) DryRun(ctx context.Context, r *rtaskv1.DryRunRequest) (*rtaskv1.DryRunResponse, error) {
	m := r
	switch {
	case m.Task == "":
		return nil, connect.NewError(connect.CodeInvalidArgument, "no task was named")
	case m.Key != "" && m.Webhook != "":
		return nil, connect.NewError(connect.CodeInvalidArgument, "a request comes with an API key or to a webhook, not both")
	case m.Webhook != "" && len(m.Parameters) > 0:
		return nil, connect.NewError(connect.CodeInvalidArgument, "a request to a webhook has no parameters")
	}
	by := callOf(ctx)
	c, diags := s.Options.Reload(true)
	in := Snapshot{Config: c, Switches: by.snapshot.Switches}
	reply := &rtaskv1.DryRunResponse{Diagnostics: diagnosticMessages(diags)}
	if diags.HasErrors() {
		return reply, nil
	}
	reply.Tasks = int32(len(c.Tasks))
	t := c.Tasks[m.Task]
	if t != nil {
		_, object, err := c.Show(t.Name, false)
		if err != nil {
			return nil, coded(connect.CodeInternal, err)
		}
		reply.Json = string(object)
		reply.LimitsMissing = s.limitsMissing(t.Limits, optional(c))
		e := s.exposure(t)
		reply.Exposure, reply.ExposureWord = e.Score, e.Word()
	}
	var js job.Spec
	var err error
	switch {
	case m.Key != "":
		js, err = s.dryKey(in, t, m)
	case t == nil:
		err = fail(connect.CodeNotFound, rtaskv1.KindNotFound, fmt.Errorf("there is no task %q", m.Task))
	case m.Webhook != "":
		w := webhookOf(t, m.Webhook)
		if w == nil {
			return nil, noWebhook(t.Name, m.Webhook)
		}
		h := sample(by, in, t, w)
		base, _ := s.baseURL(ctx, c)
		err = s.judgeSample(h, s.webhookMessage(base, h.webhook), wish{})
		js, reply.Reason = h.spec, h.skip
	default:
		js, err = s.requestSpec(in, t, request{owner: by.owner(), trigger: "local", params: messageParameters(m.Parameters)})
	}
	if err == nil && s.Jobs.Draining() {
		err = drainError()
	}
	switch {
	case err != nil:
		reply.Decision, reply.Kind, reply.Reason = refused, string(kindOf(err)), errorText(err)
	case reply.Reason != "":
		reply.Decision = ignored
	default:
		reply.Decision, reply.Environment = accepted, toldOf(js)
	}
	return reply, nil
}

// dryKey is what a request with an API key would start. An error says what is wrong in the administrator's words: who presents a
// bad key, or a good one for another task, is told less.
func (s *Server) dryKey(in Snapshot, t *config.Task, m *rtaskv1.DryRunRequest) (job.Spec, error) {
	keys := s.Keys.List()
	i := slices.IndexFunc(keys, func(k auth.KeyInfo) bool { return k.Name == m.Key || k.ID == m.Key })
	refuse := func(code connect.Code, kind rtaskv1.Kind, format string, args ...any) (job.Spec, error) {
		return job.Spec{}, fail(code, kind, fmt.Errorf(format, args...))
	}
	switch {
	case i < 0:
		return refuse(connect.CodeUnauthenticated, rtaskv1.KindUnauthorized, "there is no API key %q: rtaskctl key add makes one", m.Key)
	case !keys[i].Expires.IsZero() && !keys[i].Expires.After(time.Now()):
		return refuse(connect.CodeUnauthenticated, rtaskv1.KindUnauthorized, "the API key %s expired on %s", keys[i].Name, keys[i].Expires.Format(time.DateTime))
	case t == nil:
		return refuse(connect.CodePermissionDenied, rtaskv1.KindForbidden, "no task %q (callers get the same reply for tasks their key may not use)", m.Task)
	case !slices.Contains(t.APIKeys, keys[i].Name):
		return refuse(connect.CodePermissionDenied, rtaskv1.KindForbidden, "the key %s is not in api_keys of task %s", keys[i].Name, t.Name)
	}
	return s.requestSpec(in, t, request{
		owner: job.Owner{Key: keys[i].ID, Name: keys[i].Name}, trigger: "http", params: messageParameters(m.Parameters),
	})
}

// toldOf is what a job is told of its request, as NAME=value.
func toldOf(js job.Spec) []string {
	return slices.DeleteFunc(slices.Clone(js.Env), func(kv string) bool {
		return !strings.HasPrefix(kv, "RTASK_") && !strings.HasPrefix(kv, "REQUEST_HEADER_")
	})
}

// exposure is how much a task's sandbox leaves open on this machine.
func (s *Server) exposure(t *config.Task) config.Exposure {
	sandbox, _ := s.Give(t.Sandbox)
	return config.ExposureOf(sandbox, s.asRoot(t))
}
