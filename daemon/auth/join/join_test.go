package join

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func example(address string) Token {
	t := Token{Address: address}
	for i := range t.Pin {
		t.Pin[i], t.Secret[i] = byte(i), byte(200+i)
	}
	return t
}

func TestText(t *testing.T) {
	for _, address := range []string{"build.example.org:8843", "[2001:db8::1]:1", "192.0.2.1:65535", "a:1", strings.Repeat("a", 253) + ":65535"} {
		want := example(address)
		text := want.Text()
		if !strings.HasPrefix(text, "rtj1_") || strings.Trim(text[5:], digits) != "" {
			t.Errorf("%s: the text is %q", address, text)
		}
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", address, got, err)
		}
		if len(text) > maxText {
			t.Errorf("%s: %d characters", address, len(text))
		}
	}
}

// TestChanged changes each character of a token, leaves it out, and doubles it.
func TestChanged(t *testing.T) {
	text := example("build.example.org:8843").Text()
	for i := range text {
		other := "0"
		if text[i] == '0' {
			other = "1"
		}
		for _, changed := range []string{text[:i] + other + text[i+1:], text[:i] + text[i+1:], text[:i] + text[i:i+1] + text[i:], text[:i]} {
			if changed == text {
				continue
			}
			if got, err := Parse(changed); !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %v, %v", changed, got, err)
			}
		}
	}
	for _, changed := range []string{"", "rtj1_", "rtj2_" + text[5:], "rtj1_0" + text[5:], text + "\n", " " + text, strings.ToUpper(text), "rtj1_" + strings.Repeat("z", 1<<20)} {
		if _, err := Parse(changed); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v", changed, err)
		}
	}
	for _, address := range []string{"", "host", "host:0", "host:08843", "host:65536", ":8843", "ho st:1", "user@host:1", "host/x:1", "höst:1", strings.Repeat("a", 254) + ":65535"} {
		if _, err := Parse(example(address).Text()); !errors.Is(err, ErrMalformed) {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

func TestSecretDoesNotShow(t *testing.T) {
	token := example("build.example.org:8843")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		if got := fmt.Sprintf(verb, token); got != "rtj1_… for build.example.org:8843" {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example("build.example.org:8843").Text())
	f.Add("rtj1_1")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Parse(text)
		if err == nil && got.Text() != text {
			t.Errorf("%q is also %q", text, got.Text())
		}
	})
}
