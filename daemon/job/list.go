package job

import (
	"errors"

	"github.com/rtask/rtask/daemon/store"
)

// list is Manager.List.
func (d *ledger) list(f Filter) ([]Job, error) {
	if f.Limit <= 0 {
		f.Limit = listed
	}
	jobs := d.jobs.those(f.fits)
	if f.ended() {
		recorded, err := d.recorded(&f, jobs)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, recorded...)
		newestFirst(jobs)
	}
	return jobs[:min(len(jobs), f.Limit)], nil
}

// recorded returns the newest jobs on record that fit, but for those in except.
func (d *ledger) recorded(f *Filter, except []Job) ([]Job, error) {
	skip := make(map[string]bool, len(except))
	for _, j := range except {
		skip[j.ID] = true
	}
	var jobs []Job
	for j, err := range d.Select(f.Since, f.Until, f.summaryFits) {
		var damaged *store.DecodeError
		switch {
		case errors.As(err, &damaged):
			d.opts.Logger.Error("cannot read a job's record", "error", err)
			continue
		case errors.Is(err, store.ErrClosed):
			return nil, ErrClosed
		case err != nil:
			return nil, err
		}
		if !f.fits(j) || skip[j.ID] {
			continue
		}
		if jobs = append(jobs, j); len(jobs) == f.Limit {
			break
		}
	}
	return jobs, nil
}
