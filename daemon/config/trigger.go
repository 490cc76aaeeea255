package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// reference is the name of another task, where it stands.
type reference struct {
	d    *decoder
	rng  hcl.Range
	task string
}

// triggers are the tasks that a task starts when it ends, by the name of the attribute. An attribute that a task has takes
// the place of that of defaults.
type triggers map[string][]reference

// tasks sets the references of one attribute, which are looked up when all files are read.
func (d *decoder) tasks(v value, t *draft) {
	set := maps.Clone(t.triggers) // not that of defaults
	if set == nil {
		set = triggers{}
	}
	set[v.name] = []reference{}
	var names []string
	d.names(v, &names, func(e value, s string) bool {
		set[v.name] = append(set[v.name], reference{d, e.rng(), s})
		return true
	})
	t.triggers = set
}

// inherit returns the triggers that a task of this name has of those of defaults: a task that one of their lists names has
// nothing of that list, or the task would trigger itself.
func (t triggers) inherit(name string) triggers {
	own := triggers{}
	for attribute, all := range t {
		if !slices.ContainsFunc(all, func(r reference) bool { return r.task == name }) {
			own[attribute] = all
		}
	}
	return own
}

func (t triggers) names(attribute string) []string {
	var names []string
	for _, r := range t[attribute] {
		names = append(names, r.task)
	}
	return names
}

// checkTriggers reports references to unknown tasks, and tasks that trigger each other in a circle.
func (b *builder) checkTriggers() {
	known := slices.Sorted(maps.Keys(b.cfg.Tasks))
	unknown := map[string]bool{} // by place: what stands in defaults is reported once
	for _, t := range append([]triggers{b.defaults.triggers}, slices.Collect(maps.Values(b.triggers))...) {
		for attribute, all := range t {
			for _, r := range all {
				place := r.d.pos(r.rng).String()
				if unknown[place] {
					continue
				}
				if t := b.cfg.Tasks[r.task]; t != nil {
					if _, err := t.Parameters(nil); err != nil {
						unknown[place] = true
						r.d.errorf(r.rng, "A triggered run cannot supply this parameter. Give it a default.", "%s: task %q cannot be started: %v", attribute, r.task, err)
					}
					continue
				}
				unknown[place] = true
				detail := ""
				if near := nearest(r.task, known); near != "" {
					detail = fmt.Sprintf("Did you mean %q?", near)
				}
				r.d.errorf(r.rng, detail, "%s: there is no task %q", attribute, r.task)
			}
		}
	}
	done := map[string]bool{}
	for _, name := range known {
		b.walk(name, nil, done)
	}
}

// walk follows the triggers of a task, with the path that led to it, and reports where one leads back.
func (b *builder) walk(name string, path []string, done map[string]bool) {
	if done[name] {
		return
	}
	path = append(path, name)
	for _, attribute := range slices.Sorted(maps.Keys(b.triggers[name])) {
		for _, r := range b.triggers[name][attribute] {
			i := slices.Index(path, r.task)
			if i < 0 {
				b.walk(r.task, path, done)
				continue
			}
			circle := strings.Join(append(slices.Clone(path[i:]), r.task), " → ")
			if len(path)-i == 1 {
				r.d.errorf(r.rng, "", "%s: task %q would trigger itself", attribute, r.task)
			} else {
				r.d.errorf(r.rng, "They would run for ever.", "%s: tasks trigger each other in a circle: %s", attribute, circle)
			}
		}
	}
	done[name] = true
}
