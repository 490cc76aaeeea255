package job

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rtask/rtask/sandbox/spec"
)

// listed is how many jobs List returns by default.
const listed = 1000

// Filter says which jobs List returns: those that match every field that is set.
type Filter struct {
	// Ended includes jobs that have ended. States with Ended in it, Succeeded and Reasons imply it.
	Ended bool
	// States, if not empty, are the states of the jobs to return.
	States []State
	// Succeeded, if set, returns only jobs that have ended, with success or without.
	Succeeded *bool
	// Reasons, if not empty, are the reasons for which the jobs to return have ended.
	Reasons []spec.Reason
	// Task, User and Owner are each, if set, the only one whose jobs are returned: Job.Task, Job.User, Job.Owner as text.
	Task, User, Owner string
	// Since and Until bound Job.QueuedAt, both inclusive. The zero Time is no bound.
	Since, Until time.Time
	// EndedSince, if set, returns only jobs that have ended then or later.
	EndedSince time.Time
	// Limit is how many are returned at most; 0: 1000.
	Limit int
	// Visible, if set, leaves out jobs for which it returns false. It may look only at ID, Task, User and Owner.
	Visible func(Job) bool
}

// summary is what is known of a recorded job without reading its record: what a Filter asks for.
func summary(j *Job) []byte {
	reason := ""
	if j.Exit != nil {
		reason = "=" + string(j.Exit.Reason)
	}
	return []byte(strings.Join([]string{
		string(j.State), reason, j.Task, j.User, strconv.FormatUint(uint64(j.Owner.UID), 10), j.Owner.Key, j.Owner.Name, j.Owner.Subject,
	}, "\x00"))
}

// summaryFits is fits by the summary of a job. It returns true if the summary is not enough: fits decides later.
func (f *Filter) summaryFits(id string, queued time.Time, summary []byte) bool {
	const first = 7 // parts, of a summary that an engine of before has written
	p := strings.Split(string(summary), "\x00")
	if len(p) == first {
		p = append(p, "")
	}
	if len(p) != first+1 {
		return true
	}
	uid, err := strconv.ParseUint(p[4], 10, 32)
	if err != nil {
		return true
	}
	j := Job{
		Spec: Spec{Run: spec.Run{ID: id, Task: p[2]}, Owner: Owner{UID: uint32(uid), Key: p[5], Name: p[6], Subject: p[7]}}, State: State(p[0]), User: p[3], QueuedAt: queued,
	}
	if reason, ok := strings.CutPrefix(p[1], "="); ok {
		j.Exit = &spec.Exit{Reason: spec.Reason(reason)}
	}
	g := *f
	g.Ended, g.EndedSince = f.ended(), time.Time{} // which a summary does not have
	return g.fits(j)
}

// ended reports whether f lets jobs in that have ended.
func (f *Filter) ended() bool {
	if len(f.States) > 0 {
		return slices.Contains(f.States, Ended)
	}
	return f.Ended || !f.EndedSince.IsZero() || f.Succeeded != nil || len(f.Reasons) > 0
}

// fits reports whether f lets a job in.
func (f *Filter) fits(j Job) bool {
	switch {
	case j.Into != "", j.State == promised,
		j.State == Ended && !f.ended(),
		len(f.States) > 0 && !slices.Contains(f.States, j.State),
		f.Succeeded != nil && (j.State != Ended || j.Succeeded() != *f.Succeeded),
		len(f.Reasons) > 0 && (j.Exit == nil || !slices.Contains(f.Reasons, j.Exit.Reason)),
		f.Task != "" && j.Task != f.Task,
		f.User != "" && j.User != f.User,
		f.Owner != "" && j.Owner.String() != f.Owner,
		!f.Since.IsZero() && j.QueuedAt.Before(f.Since),
		!f.Until.IsZero() && j.QueuedAt.After(f.Until),
		!f.EndedSince.IsZero() && (j.State != Ended || j.EndedAt.Before(f.EndedSince)):
		return false
	}
	return f.Visible == nil || f.Visible(j)
}
