package config

import (
	"strconv"
	"time"
)

// kind is what a value is: how the manual and the schema describe it, and how it is read.
type kind[T any] struct {
	// word is what the manual calls it: boolean, number, size, …
	word string
	// values lists the possible values, if they are few.
	values []string
	// least and most are the bounds, as they are written in a file; "": there is none that is worth a word.
	least, most string
	// several says that it may come several times on a command line, which makes a list of it.
	several bool
	// overRequest says that it is, or has in it, an expression over a webhook's request.
	overRequest bool
	// decode checks v and sets it in t. What is wrong it reports.
	decode func(d *decoder, v value, t *T)
}

// boolean is true or false.
func boolean[T any](field func(*T) *bool) kind[T] {
	return kind[T]{word: "boolean", decode: func(d *decoder, v value, t *T) { d.bool(v, field(t)) }}
}

// integer is a whole number.
func integer[T any, N int | uint32 | uint8](field func(*T) *N, least, most int64) kind[T] {
	return kind[T]{word: "number", least: strconv.FormatInt(least, 10), most: strconv.FormatInt(most, 10), decode: func(d *decoder, v value, t *T) {
		n := int64(*field(t))
		d.integer(v, &n, least, most)
		*field(t) = N(n)
	}}
}

// size is a number of bytes.
func size[T any](field func(*T) *int64, most int64) kind[T] {
	k := kind[T]{word: "size", decode: func(d *decoder, v value, t *T) { d.sizeWithin(v, field(t), 0, most) }}
	if most < maxSize {
		k.most = sizeText(most)
	}
	return k
}

// duration is a time; with forever, "infinity" is 0.
func duration[T any](field func(*T) *time.Duration, forever bool) kind[T] {
	return kind[T]{word: "duration", decode: func(d *decoder, v value, t *T) { d.duration(v, field(t), forever) }}
}

// choice is one of a few words.
func choice[T any, S ~string](field func(*T) *S, words ...S) kind[T] {
	k := kind[T]{word: "string"}
	for _, w := range words {
		k.values = append(k.values, string(w))
	}
	k.decode = func(d *decoder, v value, t *T) {
		word := string(*field(t))
		d.choice(v, &word, k.values...)
		*field(t) = S(word)
	}
	return k
}

// list is a list of strings, none twice, each of which check takes or reports.
func list[T any](field func(*T) *[]string, check func(*decoder, value, string) bool) kind[T] {
	return kind[T]{word: "list", decode: func(d *decoder, v value, t *T) {
		d.names(v, field(t), func(e value, s string) bool { return check(d, e, s) })
	}}
}

// any text of a list is good.
func anyText(*decoder, value, string) bool { return true }

// text is what another function reads out of a string.
func text[T any](decode func(*decoder, value, *T)) kind[T] {
	return kind[T]{word: "string", decode: decode}
}

// texts is what another function reads out of a list; on a command line it may come several times.
func texts[T any](decode func(*decoder, value, *T)) kind[T] {
	return kind[T]{word: "list", several: true, decode: decode}
}
