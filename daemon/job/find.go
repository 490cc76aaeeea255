package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rtask/rtask/daemon/store"
)

// minPrefix is how many characters of an id name a job at least.
const minPrefix = 4

// find is Manager.Find.
func (d *ledger) find(ref string, visible func(Job) bool) (Job, error) {
	seen := func(j Job) bool { return j.State != promised && (visible == nil || visible(j)) }
	var found []Job
	var err error
	if pid, atoiErr := strconv.Atoi(ref); atoiErr == nil {
		// 0 is no process, but what a job has that is just being started.
		found = d.jobs.those(func(j Job) bool { return pid > 0 && j.PID == pid && j.State != Ended && seen(j) })
	} else if ref != "" && len(ref) < minPrefix {
		return Job{}, fmt.Errorf("%q: %w", ref, ErrShort)
	} else if ref != "" {
		found, err = d.byPrefix(ref, seen)
	}
	switch {
	case errors.Is(err, store.ErrClosed):
		return Job{}, ErrClosed
	case err != nil:
		return Job{}, err
	case len(found) == 0:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrNotFound)
	case len(found) > 1:
		return Job{}, fmt.Errorf("%q: %w", ref, ErrAmbiguous)
	}
	if found[0].Into != "" {
		return d.target(found[0])
	}
	return found[0], nil
}

// byPrefix returns the jobs whose ids begin with ref.
func (d *ledger) byPrefix(ref string, seen func(Job) bool) ([]Job, error) {
	if len(ref) >= idLength {
		return d.byID(ref, seen)
	}
	// Those that run come first: one that ends meanwhile is in the records then, and found twice, but not missed. An alias is in
	// the records before its id is known to anybody.
	found := d.jobs.those(func(j Job) bool { return strings.HasPrefix(j.ID, ref) && seen(j) })
	recorded, err := d.Match(ref, 0)
	for _, j := range recorded {
		if seen(j) && !slices.ContainsFunc(found, func(k Job) bool { return k.ID == j.ID }) {
			found = append(found, j)
		}
	}
	var damaged *store.DecodeError
	if errors.As(err, &damaged) && len(found) > 0 {
		err = nil // what was asked for is another one
	}
	return found, err
}

// byID returns the job, or the alias of one, that has exactly this id. Clients on the network ask so: it looks at no other job.
func (d *ledger) byID(id string, seen func(Job) bool) ([]Job, error) {
	l, j, _ := d.jobs.remembered(id)
	if l == nil {
		var err error
		if j, err = d.get(id); errors.Is(err, ErrNotFound) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	if !seen(j) {
		return nil, nil
	}
	return []Job{j}, nil
}

// resolve returns the id of the job that id is an alias of, or id.
func (d *ledger) resolve(id string) string {
	if l, j, _ := d.jobs.remembered(id); l != nil {
		return cmp.Or(j.Into, j.ID)
	}
	if j, err := d.Get(id); err == nil && j.Into != "" {
		return j.Into
	}
	return id
}

// target returns the job that alias is of, as it is now. One that is not known any more has left its end in the alias.
func (d *ledger) target(alias Job) (Job, error) {
	if l := d.jobs.get(alias.Into); l != nil {
		return l.snapshot(), nil
	}
	j, err := d.get(alias.Into)
	if errors.Is(err, ErrNotFound) || err == nil && j.State == promised {
		return alias, nil
	}
	return j, err
}

// wait is Manager.Wait.
func (d *ledger) wait(ctx context.Context, id string) (Result, error) {
	id = d.resolve(id)
	if l := d.jobs.get(id); l != nil {
		return d.jobs.wait(ctx, l)
	}
	j, err := d.get(id)
	if err == nil && j.State == promised {
		err = fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Job: j}, nil
}
