package seccomp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rtask/rtask/sandbox/spec"
)

// Error is what is wrong with a switch of a sandbox.
type Error struct {
	// Switch is its name in the configuration, as "system_call_filter".
	Switch string
	// Entry is the string of the list that is wrong, by its index; -1 where the whole list is, or it is no list.
	Entry int
	// Text says what is wrong and what would be right.
	Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Switch + ": " + e.Text }

// families returns the numbers of RestrictAddressFamilies=, and whether it is those that are refused. nil: there is no restriction.
func families(s spec.Sandbox) (numbers []uint32, deny bool, err error) {
	const this = "restrict_address_families"
	lists := split(s.RestrictAddressFamilies)
	if len(lists) == 0 {
		return nil, false, nil
	}
	deny = lists[0].inverted
	var errs []error
	numbers = []uint32{}
	none := false
	for _, l := range lists {
		if l.inverted != deny && !deny {
			errs = append(errs, &Error{this, l.entry, `"~" goes before the first family and then holds for all`})
			continue
		}
		if len(l.words) == 0 {
			errs = append(errs, &Error{this, l.entry, `"~" is before nothing; write "~AF_INET", say`})
		}
		for _, word := range l.words {
			if word == "none" {
				none = true
				continue
			}
			n, ok := find(familyTable[:], strings.ToUpper(word))
			if !ok {
				errs = append(errs, &Error{this, l.entry, unknown("address family", word, func(yield func(string) bool) {
					for _, f := range familyTable {
						if !yield(f.name) {
							return
						}
					}
				}).Error()})
				continue
			}
			numbers = append(numbers, n)
		}
	}
	if none && (deny || len(numbers) > 0) {
		errs = append(errs, &Error{this, -1, `"none" stands alone`})
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), deny, errors.Join(errs...)
}

// refusedNamespaces returns the CLONE_NEW flags of RestrictNamespaces= that are refused.
func refusedNamespaces(s spec.Sandbox) (uint32, error) {
	const this = "restrict_namespaces"
	lists := split(s.RestrictNamespaces)
	if len(lists) == 0 {
		return 0, nil
	}
	kinds := namespaceKinds()
	var all, named uint32
	for _, bit := range kinds {
		all |= bit
	}
	if len(lists) == 1 && !lists[0].inverted && len(lists[0].words) == 1 {
		switch lists[0].words[0] {
		case "yes", "true":
			return all, nil
		case "no", "false":
			return 0, nil
		}
	}
	deny := lists[0].inverted
	var errs []error
	for _, l := range lists {
		if l.inverted != deny && !deny {
			errs = append(errs, &Error{this, l.entry, `"~" goes before the first kind and then holds for all`})
			continue
		}
		if len(l.words) == 0 {
			errs = append(errs, &Error{this, l.entry, `"~" is before nothing; write "~user", say`})
		}
		for _, word := range l.words {
			bit, ok := kinds[word]
			if !ok {
				errs = append(errs, &Error{this, l.entry,
					fmt.Sprintf(`there is no kind of namespaces %q; there are %s; alone, "yes" and "no"`, word, strings.Join(sortedKeys(kinds), ", "))})
			}
			named |= bit
		}
	}
	if !deny {
		named = all &^ named
	}
	return named, errors.Join(errs...)
}

// list is a string of a list.
type list struct {
	entry    int
	inverted bool // it begins with "~"
	words    []string
}

// split returns the strings of a list that have words.
func split(entries []string) []list {
	var all []list
	for i, e := range entries {
		rest, inverted := strings.CutPrefix(strings.TrimSpace(e), "~")
		if words := strings.Fields(rest); inverted || len(words) > 0 {
			all = append(all, list{i, inverted, words})
		}
	}
	return all
}
