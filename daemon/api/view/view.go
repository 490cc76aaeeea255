// Package view is the JSON in which rtaskctl --json and the HTTP API show the engine's messages: one type for each thing, so that a
// field has one name and one meaning everywhere. It is plain data made of messages; ctl and daemon/gateway import it.
package view

import (
	"encoding/base64"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Each is a view of every item, never null in JSON.
func Each[T, V any](items []T, of func(T) V) []V {
	views := make([]V, len(items))
	for i, item := range items {
		views[i] = of(item)
	}
	return views
}

// List is a list that is never null in JSON.
func List(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// Time is a time in RFC 3339, UTC; "" if it is unknown.
func Time(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

// Base64 encodes text for JSON, whose strings cannot carry the arbitrary bytes of arguments, output and file names: if any of the
// texts is not UTF-8, all of them become base64, and encoding says so.
func Base64(words []string, others ...*string) (_ []string, encoding string) {
	valid := func(s *string) bool { return utf8.ValidString(*s) }
	if !slices.ContainsFunc(words, func(s string) bool { return !valid(&s) }) && !slices.ContainsFunc(others, func(s *string) bool { return !valid(s) }) {
		return words, ""
	}
	encoded := make([]string, len(words))
	for i, s := range words {
		encoded[i] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	for _, s := range others {
		*s = base64.StdEncoding.EncodeToString([]byte(*s))
	}
	return encoded, "base64"
}
