package job

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// drafter makes jobs of Specs.
type drafter struct {
	opts *Options
	euid int // the engine's own user
}

// draft makes a job of a Spec that was checked, without a place to run.
func (d *drafter) draft(s *Spec) (Job, error) {
	j := Job{Spec: *s, State: Running, QueuedAt: time.Now()}
	j.As, j.Groups, j.Otherwise, j.Same = nil, nil, nil, same(s)
	j.Input, j.InputFile, j.InputName = nil, false, "" // set when the input is kept
	if j.ID == "" {
		j.ID = newID()
	}
	u := s.As
	switch {
	case u != nil:
	case d.euid != 0:
		u = UserOf(spec.Credentials{UID: uint32(d.euid), GID: uint32(os.Getegid())})
	default:
		j.Dynamic = true
		u = dynamic(0) // until it has a slot
	}
	if s.Group != nil || len(s.Groups) > 0 {
		other := *u // do not change the caller's
		if s.Group != nil {
			other.GID = *s.Group
		}
		other.Groups = append(slices.Clone(u.Groups), s.Groups...)
		u = &other
	}
	if !j.Retry.again() {
		j.Retry.Given = nil
	}
	j.User, j.Env = u.Name, environment(&j, u)
	j.Path = cmp.Or(s.Path, s.Command())
	j.Record, j.RecordAlways = d.opts.recordPath(j.ID), !s.Volatile
	if d.euid == 0 {
		j.Credentials = &u.Credentials
	}
	j.Sandbox, _ = d.opts.Host.Give(s.Sandbox)
	j.Sandbox.RuntimeDirectory = d.opts.Host.RuntimeDirectory()
	j.Sandbox.AsCaller = s.Task == "" && d.euid == 0 && u.UID != 0
	if len(s.Sandbox.LoadCredential) > 0 {
		j.Env = append(j.Env, "CREDENTIALS_DIRECTORY="+j.Sandbox.CredentialsDirectory())
	}
	if j.Dynamic {
		j.Sandbox = j.Sandbox.ForLentUser(dynamicName, d.opts.Host.Confines())
	}
	if s.Sandbox.Confined() {
		d.hideEngine(&j.Run)
		if j.Limits.OOMScoreAdjust == nil && d.euid == 0 {
			score := spec.JobOOMScore
			j.Limits.OOMScoreAdjust = &score
		}
	}
	return j, nil
}

// hideEngine hides the engine's configuration, secrets, records and logs from a job. The program that the job executes stays visible.
func (d *drafter) hideEngine(r *spec.Run) {
	if !d.opts.Host.Confines() {
		return
	}
	r.Sandbox.Hidden = d.opts.Host.Private()
	if slices.ContainsFunc(r.Sandbox.Hidden, func(dir string) bool { return spec.Below(r.Path, dir) }) {
		r.Sandbox.Binds = append(slices.Clone(r.Sandbox.Binds), spec.Bind{Source: r.Path, Destination: r.Path, ReadOnly: true, Optional: true})
	}
}

// environment returns a job's variables: a small clean set, then those of the job. If a name comes twice, the last value wins.
func environment(j *Job, u *User) []string {
	all := append([]string{
		"PATH=" + defaultPath,
		"HOME=" + u.Home,
		"USER=" + u.Name,
		"LOGNAME=" + u.Name,
		"SHELL=" + u.Shell,
		"LANG=C.UTF-8",
	}, j.Env...)
	all = append(all, "RTASK_JOB_ID="+j.ID, "RTASK_TRIGGER="+j.Trigger)
	if j.Task != "" {
		all = append(all, "RTASK_TASK="+j.Task)
	}
	seen := map[string]int{}
	var env []string
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := seen[name]; ok {
			env[i] = kv
			continue
		}
		seen[name] = len(env)
		env = append(env, kv)
	}
	return env
}

// same returns Terms.Same of a Job: the hash of all that requests for the same thing have in common.
func same(s *Spec) string {
	if s.Overflow != spec.Coalesce || s.Same == "" {
		return ""
	}
	h := sha256.New()
	for _, part := range []string{s.Trigger, strconv.FormatUint(uint64(s.Owner.UID), 10), s.Owner.Key, s.Owner.Name, s.Same} {
		fmt.Fprintf(h, "%d %s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
