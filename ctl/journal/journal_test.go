package journal

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDecode(t *testing.T) {
	lines := `{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1767366245000123","RTASK_TASK":"build","RTASK_REASON":[255,10,97],"RTASK_KEY":["one","two"],"RTASK_KIND":null}

{"__REALTIME_TIMESTAMP":"1767366246000000","RTASK_TASK":"ä"}`
	var got []Entry
	if err := readAll(strings.NewReader(lines), func(e Entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "1767366245000123", "RTASK_TASK": "build", "RTASK_REASON": "\xff\na", "RTASK_KEY": "one",
	}
	if len(got) != 2 || !maps.Equal(got[0].Fields, want) || !got[0].Time.Equal(time.UnixMicro(1767366245000123)) || got[1].Fields["RTASK_TASK"] != "ä" {
		t.Errorf("%+v", got)
	}
	for _, line := range []string{"no json", "{}", `{"__REALTIME_TIMESTAMP":"soon"}`, "[]"} {
		if err := readAll(strings.NewReader(line), func(Entry) error { return nil }); err == nil {
			t.Errorf("%s is no error", line)
		}
	}
	full := errors.New("full")
	if err := readAll(strings.NewReader(lines), func(Entry) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	q := Query{
		Match: [][]string{{"_UID=0", "A=1"}, {"_UID=0", "B=1"}}, Fields: []string{"A", "B"}, Since: time.Unix(12, 345_678_901), Last: 7, Follow: true,
	}
	want := strings.Fields("--quiet --no-pager --output=json --all --output-fields=A,B --lines=7 --since=@12.345678 --follow _UID=0 A=1 + _UID=0 B=1")
	if got := q.arguments(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// What cannot be read is said before journalctl is asked, which would show nothing.
func TestCheck(t *testing.T) {
	root := t.TempDir()
	own := 1001
	is := func(user *int, want error) {
		t.Helper()
		if err := (Journal{Root: root}).check(user); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	file := func(path string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	is(nil, ErrNone)
	file("run/systemd/system/x", 0o644)
	is(nil, ErrNone)
	if os.Geteuid() != 0 {
		file("var/log/journal/1/system.journal", 0)
		is(nil, ErrUnreadable)
		is(&own, ErrUnreadable)
	}
	file("var/log/journal/1/user-1001.journal", 0o600)
	is(&own, nil)
	file("run/log/journal/1/system.journal", 0o600)
	is(nil, nil)
}
