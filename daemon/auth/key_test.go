package auth

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

func testKey(t testing.TB) Key {
	t.Helper()
	var k Key
	for i := range k.id {
		k.id[i] = byte(i + 1)
	}
	for i := range k.secret {
		k.secret[i] = byte(0xf0 ^ i)
	}
	return k
}

// A key's text is an outside format: keys made by one version are presented to the next.
func TestKeyTextStaysTheSame(t *testing.T) {
	const want = "rtk_3RArTJ3V12petnOu3uuj5RGYD02EgWCJSAOFTKLJQ8pvixkiZGFGgAgdjAOlD2tK6Gn"
	k := testKey(t)
	if got := string(k.text()); got != want {
		t.Errorf("text is\n%s, want\n%s", got, want)
	}
	if got := k.ID(); got != "aebagbafaydqq" {
		t.Errorf("id is %s", got)
	}
	got, err := ParseKey([]byte(want))
	if err != nil || got != k {
		t.Errorf("ParseKey: %v, same %v", err, got == k)
	}
}

// The record inside is what it says: base62 of CBOR, as libraries that know nothing of rtask read it.
func TestKeyRecordIsCBOR(t *testing.T) {
	k := testKey(t)
	digits := string(k.text()[len(keyPrefix) : KeyLen-keyCRCDigits])
	// math/big takes lower case before upper case.
	swapped := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, digits)
	n, ok := new(big.Int).SetString(swapped, 62)
	if !ok {
		t.Fatalf("%q are not base62 digits", digits)
	}
	var record struct {
		_       struct{} `cbor:",toarray"`
		Version int
		ID      []byte
		Secret  []byte
	}
	if err := cbor.Unmarshal(n.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	if record.Version != 1 || !bytes.Equal(record.ID, k.id[:]) || !bytes.Equal(record.Secret, k.secret[:]) {
		t.Errorf("record is %+v", record)
	}
	again, err := cbor.Marshal(record)
	if err != nil || !bytes.Equal(again, n.Bytes()) {
		t.Errorf("encoded again it is %x, want %x (%v)", again, n.Bytes(), err)
	}
}

func TestKeyLengthIsTheSameForAll(t *testing.T) {
	for _, fill := range []byte{0x00, 0xff} {
		k := Key{}
		copy(k.id[:], bytes.Repeat([]byte{fill}, keyIDLen))
		copy(k.secret[:], bytes.Repeat([]byte{fill}, keySecretLen))
		text := k.text()
		if len(text) != KeyLen || text[len(keyPrefix)] == '0' {
			t.Errorf("%#x: text is %q, %d bytes", fill, text, len(text))
		}
		if got, err := ParseKey(text); err != nil || got != k {
			t.Errorf("%#x: %v", fill, err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	good := testKey(t).text()
	reseal := func(body string) []byte { // with a good checksum
		k := []byte(keyPrefix + body)
		return appendCRC(k)
	}
	record := func(head string) []byte {
		k := testKey(t)
		r := slices.Concat([]byte(head), k.id[:], []byte(keyRecordMiddle), k.secret[:])
		return reseal(string(appendBase62(nil, r, keyRecordDigits)))
	}
	tests := map[string][]byte{
		"nothing":            nil,
		"the prefix":         []byte(keyPrefix),
		"short":              good[:KeyLen-1],
		"long":               append(slices.Clone(good), '0'),
		"a newline":          append(slices.Clone(good[:KeyLen-1]), '\n'),
		"another prefix":     append([]byte("ghp_"), good[4:]...),
		"a huge one":         bytes.Repeat([]byte("z"), 1<<20),
		"no digit":           reseal(strings.Repeat("-", keyRecordDigits)),
		"too large a number": reseal(strings.Repeat("z", keyRecordDigits)),
		"zero":               reseal(strings.Repeat("0", keyRecordDigits)),
		"version 2":          record("\x83\x02\x48"),
		"array of 4":         record("\x84\x01\x48"),
		"text for the id":    record("\x83\x01\x68"),
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		tests[fmt.Sprintf("byte %d changed", i)] = bad
	}
	if _, err := ParseKey(record(keyRecordHead)); err != nil {
		t.Fatalf("the test makes no good keys: %v", err)
	}
	for name, text := range tests {
		if k, err := ParseKey(text); err != ErrMalformedKey || k != (Key{}) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestKeyHidesItsSecret(t *testing.T) {
	k := testKey(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("m", "key", k, "pointer", &k)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k, "pointer", &k)
	outputs := []string{log.String(), fmt.Sprint(k, &k, []Key{k}, struct{ K Key }{k})}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%20v"} {
		outputs = append(outputs, fmt.Sprintf(verb, k), fmt.Sprintf(verb, &k))
	}
	j, err := json.Marshal(struct{ K any }{k})
	if err != nil {
		t.Fatal(err)
	}
	outputs = append(outputs, string(j), k.String(), k.GoString())
	text := string(k.text())
	for _, out := range outputs {
		for _, secret := range []string{
			text[len(keyPrefix)+20 : len(keyPrefix)+30], hex.EncodeToString(k.secret[:4]), "240 241 242", "f0 f1 f2",
			strings.ToUpper(hex.EncodeToString(k.secret[:4])),
		} {
			if strings.Contains(out, secret) {
				t.Errorf("%q holds %q of the secret", out, secret)
			}
		}
	}
	if got := fmt.Sprintf("%d", k); got != "rtk_"+k.ID()+"…" {
		t.Errorf("%%d prints %q", got)
	}
}

func TestKeyIDText(t *testing.T) {
	for _, bad := range []string{"", "aebagbafaydq", "aebagbafaydqqa", "AEBAGBAFAYDQQ", "aebagbafaydqr", "aebagbafaydq1"} {
		var id keyID
		if err := id.UnmarshalText([]byte(bad)); err == nil || id != (keyID{}) {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	k := testKey(f)
	f.Add(k.text())
	f.Add([]byte(keyPrefix))
	f.Add(appendCRC([]byte(keyPrefix + strings.Repeat("0", keyRecordDigits))))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Random bytes never carry a good checksum: try them as they are, and as what lies below it.
		texts := [][]byte{text}
		if len(text) >= keyRecordDigits {
			texts = append(texts, appendCRC(append([]byte(keyPrefix), text[:keyRecordDigits]...)))
		}
		if len(text) >= keyIDLen+keySecretLen {
			var k Key
			copy(k.id[:], text)
			copy(k.secret[:], text[keyIDLen:])
			texts = append(texts, k.text())
		}
		for _, text := range texts {
			k, err := ParseKey(text)
			if err != nil {
				continue
			}
			if again := k.text(); !bytes.Equal(again, text) {
				t.Errorf("%q is taken for %q", text, again)
			}
		}
	})
}
