package job

import (
	"cmp"
	"os"
	"slices"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// draft makes a job of a Spec, without a place to run.
func (m *Manager) draft(s *Spec) (Job, error) {
	j := Job{Spec: *s, State: Running, QueuedAt: time.Now()}
	j.As, j.Groups, j.Otherwise, j.Same = nil, nil, nil, same(s)
	j.Input, j.InputFile, j.InputName = nil, false, "" // whoever keeps it says where
	if j.ID == "" {
		j.ID = newID()
	}
	u := s.As
	switch {
	case u != nil:
	case m.euid != 0:
		u = UserOf(spec.Credentials{UID: uint32(m.euid), GID: uint32(os.Getegid())})
	default:
		j.Dynamic = true
		u = dynamic(0) // until it has a slot
	}
	if s.Group != nil || len(s.Groups) > 0 {
		other := *u // the caller's stays as it is
		if s.Group != nil {
			other.GID = *s.Group
		}
		other.Groups = append(slices.Clone(u.Groups), s.Groups...)
		u = &other
	}
	j.User, j.Env = u.Name, environment(&j, u)
	j.Path = cmp.Or(s.Path, s.Command())
	j.Record, j.RecordAlways = m.opts.recordPath(j.ID), !s.Volatile
	if m.euid == 0 {
		j.Credentials = &u.Credentials
	}
	j.Sandbox, _ = m.opts.Host.Give(s.Sandbox)
	j.Sandbox.RuntimeDirectory = m.opts.Host.RuntimeDirectory()
	j.Sandbox.AsCaller = s.Task == "" && m.euid == 0 && u.UID != 0
	if len(s.Sandbox.LoadCredential) > 0 {
		j.Env = append(j.Env, "CREDENTIALS_DIRECTORY="+j.Sandbox.CredentialsDirectory())
	}
	if j.Dynamic {
		j.Sandbox = j.Sandbox.ForLentUser(dynamicName, m.opts.Host.Confines())
	}
	if s.Sandbox.Confined() {
		m.hideEngine(&j.Run)
		if j.Limits.OOMScoreAdjust == nil && m.euid == 0 {
			score := spec.JobOOMScore
			j.Limits.OOMScoreAdjust = &score
		}
	}
	return j, nil
}

// hideEngine hides the engine's configuration, secrets, records and logs from a job, but for the program that it executes.
func (m *Manager) hideEngine(r *spec.Run) {
	if !m.opts.Host.Confines() {
		return
	}
	r.Sandbox.Hidden = m.opts.Host.Private()
	if slices.ContainsFunc(r.Sandbox.Hidden, func(dir string) bool { return spec.Below(r.Path, dir) }) {
		r.Sandbox.Binds = append(slices.Clone(r.Sandbox.Binds), spec.Bind{Source: r.Path, Destination: r.Path, ReadOnly: true, Optional: true})
	}
}
