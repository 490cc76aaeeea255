package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

func testHash() hashRecord {
	return hashRecord{
		Version: 1, Memory: 19456, Time: 2, Threads: 1,
		Salt: bytes.Repeat([]byte{0xa5}, saltLen), Sum: bytes.Repeat([]byte{0x5a}, sumLen),
	}
}

func hashText(t testing.TB, h any) string {
	t.Helper()
	record, err := cbor.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(record)
}

// testFile is a keys file as versions of rtask write it and will have to read it.
const testFile = `# a comment
[[key]]
name = "ci"
id = "aebagbafaydqq"
created = 2026-01-02T03:04:05Z
expires = 2026-04-02T03:04:05Z
last_used = 2026-01-03T00:00:00Z
hash = "pmF2AWFtGUwAYXQCYXABZHNhbHRQpaWlpaWlpaWlpaWlpaWlpWNzdW1YIFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpa"

[[key]]
name = "deploy"
id = "aebagbafaydqa"
created = 2026-01-02T04:04:05+01:00
hash = "pmF2AWFtGUwAYXQCYXABZHNhbHRQpaWlpaWlpaWlpaWlpaWlpWNzdW1YIFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpa"
`

func TestParseKeysFile(t *testing.T) {
	entries, err := parseKeysFile("keys.toml", []byte(testFile))
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []keyEntry{
		{
			Name: "ci", ID: testKey(t).id, Created: created, Expires: created.AddDate(0, 3, 0),
			LastUsed: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC), Hash: testHash(),
		},
		{Name: "deploy", ID: keyID{1, 2, 3, 4, 5, 6, 7, 0}, Created: created, Hash: testHash()},
	}
	if !reflect.DeepEqual(entries, want) {
		t.Errorf("entries are\n%+v, want\n%+v", entries, want)
	}
	content, err := formatKeysFile(entries)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseKeysFile("keys.toml", content)
	if err != nil || !reflect.DeepEqual(again, entries) {
		t.Errorf("written and read again they are\n%+v (%v) from\n%s", again, err, content)
	}
	empty, err := formatKeysFile(nil)
	if err != nil || string(empty) != keysFileHead {
		t.Errorf("no keys are written %q, %v", empty, err)
	}
}

func TestParseKeysFileErrors(t *testing.T) {
	replace := func(from, to string) string {
		if !strings.Contains(testFile, from) {
			t.Fatalf("%q is not in the file", from)
		}
		return strings.Replace(testFile, from, to, 1)
	}
	const hash = `hash = "pmF2AWFtGUwAYXQCYXABZHNhbHRQpaWlpaWlpaWlpaWlpaWlpWNzdW1YIFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpa"`
	tests := map[string]struct {
		content string
		line    int
		says    string
	}{
		"no TOML":            {replace("[[key]]", "[[key]"), 2, ""},
		"unknown name":       {replace("created", "creatde"), 5, `no "key.creatde" here`},
		"unknown table":      {testFile + "[more]\na = 1\n", 15, `no "more" here`},
		"bad name":           {replace(`"ci"`, `"CI"`), 2, "a key's name is"},
		"bad id":             {replace("aebagbafaydqa", "AEBAGBAFAYDQA"), 12, "a key's id is"},
		"long id":            {replace("aebagbafaydqa", "aebagbafaydqaa"), 12, "a key's id is"},
		"bad time":           {replace("2026-01-02T03:04:05Z", "2026-13-02T03:04:05Z"), 5, ""},
		"a time as text":     {replace("2026-01-02T03:04:05Z", `"yesterday"`), 5, ""},
		"no name":            {replace(`name = "deploy"`, ""), 10, "has no name"},
		"no id":              {replace(`id = "aebagbafaydqa"`, ""), 10, "has no id"},
		"no hash":            {replace(hash, ""), 2, "has no hash"},
		"no creation":        {replace("created = 2026-01-02T03:04:05Z", ""), 2, "no time of creation"},
		"name twice":         {replace(`"deploy"`, `"ci"`), 10, `"ci" is the name or the id of an earlier entry`},
		"id twice":           {replace("aebagbafaydqa", "aebagbafaydqq"), 10, "earlier entry"},
		"an id as a name":    {replace(`"deploy"`, `"aebagbafaydqq"`), 10, "earlier entry"},
		"time of long ago":   {replace("2026-01-02T03:04:05Z", "1969-01-02T03:04:05Z"), 2, "years 1970"},
		"time too late":      {replace("2026-04-02T03:04:05Z", "9999-12-31T23:59:59-01:00"), 2, "years 1970"},
		"hash is no base64":  {replace(`hash = "pmF2`, `hash = "!!!!`), 8, "not one that rtask wrote"},
		"hash is no CBOR":    {replace(`hash = "pmF2`, `hash = "////`), 8, "not one that rtask wrote"},
		"hash is too long":   {replace(`hash = "`, `hash = "`+strings.Repeat("A", maxHashText)), 8, "not one that rtask wrote"},
		"key is no list":     {"key = 1\n", 1, ""},
		"key is a table":     {"[key]\nname = 'ci'\n", 1, ""},
		"binary":             {"\x00\x01", 1, ""},
		"other ways of TOML": {"key = [ {name = 'ci'} ]\n", 0, "has no id"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entries, err := parseKeysFile("keys.toml", []byte(test.content))
			wrong, ok := errors.AsType[*FileError](err)
			if !ok || entries != nil {
				t.Fatalf("entries %+v, error %v", entries, err)
			}
			if wrong.Line != test.line || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %q in line %d, want line %d", err, wrong.Line, test.line)
			}
			want := "keys.toml:"
			if test.line > 0 {
				want = fmt.Sprintf("keys.toml:%d:", test.line)
			}
			if !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "WlpaWlpa") {
				t.Errorf("error %q", err)
			}
		})
	}
}

func TestHashRecordRefuses(t *testing.T) {
	good := testHash()
	change := func(f func(h *hashRecord)) string {
		h := testHash()
		f(&h)
		return hashText(t, h)
	}
	record, err := cbor.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	tests := map[string]string{
		"nothing":        "",
		"version 2":      change(func(h *hashRecord) { h.Version = 2 }),
		"version 0":      change(func(h *hashRecord) { h.Version = 0 }),
		"much memory":    change(func(h *hashRecord) { h.Memory = 1<<20 + 1 }),
		"no memory":      change(func(h *hashRecord) { h.Memory = 0 }),
		"no time":        change(func(h *hashRecord) { h.Time = 0 }),
		"much time":      change(func(h *hashRecord) { h.Time = 65 }),
		"no threads":     change(func(h *hashRecord) { h.Threads = 0 }),
		"many threads":   change(func(h *hashRecord) { h.Threads = 65 }),
		"a short salt":   change(func(h *hashRecord) { h.Salt = h.Salt[:15] }),
		"no sum":         change(func(h *hashRecord) { h.Sum = nil }),
		"a long sum":     change(func(h *hashRecord) { h.Sum = append(h.Sum, 0) }),
		"trailing bytes": b64(append(bytes.Clone(record), 0)),
		"cut":            b64(record[:len(record)-1]),
		"line feeds":     hashText(t, good) + "\n",
		"another order":  hashText(t, map[string]any{"sum": good.Sum, "salt": good.Salt, "v": 1, "m": 19456, "t": 2, "p": 1}),
		"an array":       hashText(t, []any{1, 19456, 2, 1, good.Salt, good.Sum}),
		"a name too many": hashText(t, struct {
			hashRecord
			More int `cbor:"more"`
		}{good, 1}),
	}
	for name, text := range tests {
		var h hashRecord
		if err := h.UnmarshalText([]byte(text)); err == nil || !reflect.DeepEqual(h, hashRecord{}) {
			t.Errorf("%s is taken: %+v", name, h)
		}
	}
	var h hashRecord
	if err := h.UnmarshalText([]byte(hashText(t, good))); err != nil || !h.equal(good) {
		t.Errorf("the good one: %v", err)
	}
}

func FuzzKeyRecord(f *testing.F) {
	record, err := cbor.Marshal(testHash())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte{0xa0})
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, record []byte) {
		text := base64.StdEncoding.EncodeToString(record)
		var h hashRecord
		if err := h.UnmarshalText([]byte(text)); err != nil {
			return
		}
		again, err := h.MarshalText()
		if err != nil || string(again) != text {
			t.Errorf("%s is taken for %s (%v)", text, again, err)
		}
		if err := h.params().Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	})
}

func FuzzKeysFile(f *testing.F) {
	f.Add([]byte(testFile))
	f.Add([]byte("key = []"))
	f.Add([]byte("[[key]]\nname = 'ci'\n[[key]]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := parseKeysFile("keys.toml", content)
		if err != nil {
			if _, ok := errors.AsType[*FileError](err); !ok {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		written, err := formatKeysFile(entries)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseKeysFile("keys.toml", written)
		if err != nil || len(again) != len(entries) || len(entries) > 0 && !reflect.DeepEqual(again, entries) {
			t.Errorf("%+v are written\n%s\nand read %+v, %v", entries, written, again, err)
		}
	})
}

// A keys file that an editor of another system wrote is read as it was meant.
func TestKeysFileOfAnotherSystem(t *testing.T) {
	s := newStore(t)
	_, key := s.add(t, "ci", time.Time{})
	content, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	content = append([]byte("\xef\xbb\xbf"), bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n"))...)
	if err := os.WriteFile(s.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	s.verify(t, key, nil, 1)
}
