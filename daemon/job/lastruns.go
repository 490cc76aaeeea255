package job

import (
	"errors"
	"time"

	"github.com/rtask/rtask/daemon/store"
)

// lastRuns is Manager.LastRuns. It reads summaries of records, the newest first, until it has found all.
func (d *ledger) lastRuns(tasks []string, visible func(Job) bool) (map[string]Job, error) {
	missing := make(map[string]bool, len(tasks))
	for _, t := range tasks {
		missing[t] = true
	}
	last, live := map[string]Job{}, map[string]bool{}
	f := Filter{Ended: true, Visible: visible}
	for _, j := range d.jobs.those(f.fits) { // the newest first
		live[j.ID] = true
		if other, ok := last[j.Task]; missing[j.Task] && (!ok || other.State == Queued) && (j.State != Queued || !ok) {
			last[j.Task] = j
		}
	}
	for t, j := range last {
		if j.State != Queued {
			delete(missing, t)
		}
	}
	if len(missing) == 0 {
		return last, nil
	}
	// Records come a page at a time, and what their summaries say too little of, such as requests that another job answered, fits.
	of := Filter{Ended: true, Visible: func(j Job) bool {
		return missing[j.Task] && !live[j.ID] && (visible == nil || visible(j))
	}}
	for j, err := range d.Select(time.Time{}, time.Time{}, of.summaryFits) {
		var damaged *store.DecodeError
		switch {
		case errors.As(err, &damaged):
			d.opts.Logger.Error("cannot read a job's record", "error", err)
		case errors.Is(err, store.ErrClosed):
			return nil, ErrClosed
		case err != nil:
			return nil, err
		case j.State == Ended && of.fits(j):
			last[j.Task] = j
			delete(missing, j.Task)
		}
		if len(missing) == 0 {
			break
		}
	}
	return last, nil
}
