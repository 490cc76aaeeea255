package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect/v2"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
	"github.com/rtask/rtask/daemon/config"
	"github.com/rtask/rtask/daemon/job"
)

// AddKey implements JobService.
func (s *Server) AddKey(ctx context.Context, r *rtaskv1.AddKeyRequest) (*rtaskv1.AddKeyResponse, error) {
	var expires time.Time
	if in := r.ExpiresIn; in != nil {
		if err := in.CheckValid(); err != nil || in.AsDuration() <= 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, "a key expires after a time above 0")
		}
		expires = time.Now().Add(in.AsDuration())
	}
	info, secret, err := s.Keys.Add(r.Name, expires)
	if err != nil {
		return nil, keyError(err)
	}
	s.Logger.Info("API key added", "key", info.ID, "name", info.Name, "by", callOf(ctx).Name())
	return &rtaskv1.AddKeyResponse{Key: keyMessage(info), Secret: string(secret)}, nil
}

// ListKeys implements JobService.
func (s *Server) ListKeys(context.Context, *rtaskv1.ListKeysRequest) (*rtaskv1.ListKeysResponse, error) {
	reply := &rtaskv1.ListKeysResponse{}
	for _, k := range s.Keys.List() {
		reply.Keys = append(reply.Keys, keyMessage(k))
	}
	return reply, nil
}

// RevokeKey implements JobService. It returns when nobody waits any more who came with that key, and nothing in a queue.
func (s *Server) RevokeKey(ctx context.Context, r *rtaskv1.RevokeKeyRequest) (*rtaskv1.RevokeKeyResponse, error) {
	info, err := s.Keys.Revoke(r.Key)
	if info.ID != "" { // useless from now on, even if the file could not be written
		s.waits.end(ctx, info.ID) // first: a client that waits for a queued job learns that its key is revoked
		// The queue is emptied even if the caller has gone.
		s.Jobs.StopQueued(context.WithoutCancel(ctx), func(o job.Owner) bool { return o.Key == info.ID }, job.StopOptions{By: callOf(ctx).Name() + ", who revoked its key"})
	}
	if err != nil {
		return nil, keyError(err)
	}
	s.Logger.Info("API key revoked", "key", info.ID, "name", info.Name, "by", callOf(ctx).Name())
	return &rtaskv1.RevokeKeyResponse{Key: keyMessage(info)}, nil
}

func keyError(err error) error {
	switch {
	case errors.Is(err, auth.ErrKeyExists):
		return fail(connect.CodeAlreadyExists, rtaskv1.KindConflict, err)
	case errors.Is(err, auth.ErrNoKey):
		return fail(connect.CodeNotFound, rtaskv1.KindNotFound, err)
	case errors.Is(err, auth.ErrBadName), errors.Is(err, auth.ErrBadExpiry), errors.As(err, new(*auth.FileError)):
		return coded(connect.CodeInvalidArgument, err)
	default:
		return coded(connect.CodeInternal, err)
	}
}

// Reload implements JobService.
func (s *Server) Reload(ctx context.Context, r *rtaskv1.ReloadRequest) (*rtaskv1.ReloadResponse, error) {
	cfg, diags := s.Options.Reload(r.CheckOnly)
	reply := &rtaskv1.ReloadResponse{Diagnostics: diagnosticMessages(append(diags, s.keyProblems(cfg)...))}
	if cfg != nil {
		reply.Tasks = int32(len(cfg.Tasks))
		for _, name := range slices.Sorted(maps.Keys(cfg.Tasks)) {
			if t := cfg.Tasks[name]; t.Schedule != nil && !t.Schedule.Next.IsZero() {
				reply.NextRuns = append(reply.NextRuns, &rtaskv1.NextRun{Task: name, At: timestamp(t.Schedule.Next)})
			}
		}
	}
	return reply, nil
}

// keyProblems are warnings of API keys that tasks name and that cannot be used now.
func (s *Server) keyProblems(c *config.Config) config.Diagnostics {
	if c == nil || s.Keys.Unread() {
		return nil
	}
	keys := map[string]auth.KeyInfo{}
	for _, k := range s.Keys.List() {
		keys[k.Name] = k
	}
	return c.KeyProblems(func(name string) (summary, detail string) {
		switch k, ok := keys[name]; {
		case !ok:
			return fmt.Sprintf("api_keys: there is no API key %q", name), "Do: rtaskctl key add " + name
		case !k.Expires.IsZero() && !k.Expires.After(time.Now()):
			return fmt.Sprintf("api_keys: the API key %q expired on %s", name, k.Expires.Format(time.DateTime)), "Do: rtaskctl key rotate --expires TIME " + name
		}
		return "", ""
	})
}

// Info implements JobService.
func (s *Server) Info(ctx context.Context, _ *rtaskv1.InfoRequest) (*rtaskv1.InfoResponse, error) {
	i := s.Options.Info
	c := callOf(ctx)
	if c.Kind == auth.Remote {
		return s.remoteInfo(c)
	}
	snapshot := c.snapshot
	states, _ := s.Jobs.Count()
	var sockets []*rtaskv1.SocketUnit
	for _, u := range s.Sockets(ctx) {
		sockets = append(sockets, &rtaskv1.SocketUnit{Unit: u.Name, Addresses: u.Addresses, State: u.State, Problem: u.Problem, Taken: u.Taken})
	}
	return &rtaskv1.InfoResponse{
		Version: i.Version, Manager: i.Manager, StartedAt: timestamp(i.Started), Running: int32(states[job.Running] + states[job.Stopping]),
		Queued:      int32(states[job.Queued]),
		Diagnostics: diagnosticMessages(slices.Concat(snapshot.Diagnostics, s.keyProblems(snapshot.Config))), Weaker: i.Weaker,
		Draining: s.Jobs.Draining(), Switches: switchMessages(snapshot), ConfigurationReadAt: timestamp(snapshot.ReadAt), Sockets: sockets, RemoteAccess: s.remoteAccess(),
	}, nil
}
