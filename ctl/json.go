package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/urfave/cli/v2"

	"github.com/rtask/rtask/daemon/api/view"
)

// listing is how a command shows items: as JSON, or as the rows of a table.
type listing[T, V any] struct {
	view   func(T) V
	header []column
	row    func(T) []string
	// none is said on standard error where there are no items.
	none string
}

// print prints items as JSON or as a table.
func (l listing[T, V]) print(a *app, c *cli.Context, items []T) error {
	if c.Bool("json") {
		return a.printJSON(view.Each(items, l.view))
	}
	if len(items) == 0 {
		a.say("%s", l.none)
		return nil
	}
	return a.table(l.header, view.Each(items, l.row))
}

// result prints what a command has done: as JSON, or as a text.
func (a *app) result(c *cli.Context, value any, text string) error {
	if c.Bool("json") {
		return a.printJSON(value)
	}
	return a.print(text)
}

// printJSON prints a value on one line. Like \x1b, which encoding/json escapes, characters beyond ASCII that a terminal
// could act on are escaped.
func (a *app) printJSON(value any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return fmt.Errorf("cannot encode the result: %w", err)
	}
	var safe strings.Builder
	for _, r := range b.String() {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			safe.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&safe, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&safe, `\u%04x`, r)
		}
	}
	return a.print(safe.String())
}
