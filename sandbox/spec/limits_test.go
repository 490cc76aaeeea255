package spec_test

import (
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtask/rtask/sandbox/spec"
)

// TestIsZero sets each field by itself, so that none is forgotten.
func TestIsZero(t *testing.T) {
	for i := range reflect.TypeFor[spec.Limits]().NumField() {
		var l spec.Limits
		field := reflect.ValueOf(&l).Elem().Field(i)
		switch field.Kind() {
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		default:
			field.SetString("rtask.slice")
		}
		if l.IsZero() {
			t.Errorf("%s alone is nothing", reflect.TypeFor[spec.Limits]().Field(i).Name)
		}
	}
}

func TestResourceNumbers(t *testing.T) {
	for name, want := range map[string]int{
		"cpu": unix.RLIMIT_CPU, "fsize": unix.RLIMIT_FSIZE, "data": unix.RLIMIT_DATA, "stack": unix.RLIMIT_STACK,
		"core": unix.RLIMIT_CORE, "rss": unix.RLIMIT_RSS, "nproc": unix.RLIMIT_NPROC, "nofile": unix.RLIMIT_NOFILE,
		"memlock": unix.RLIMIT_MEMLOCK, "as": unix.RLIMIT_AS, "locks": unix.RLIMIT_LOCKS, "sigpending": unix.RLIMIT_SIGPENDING,
		"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	} {
		if got, ok := (spec.RLimit{Resource: name}).Number(); !ok || got != want {
			t.Errorf("%s is %d, %v, want %d", name, got, ok, want)
		}
	}
	if _, ok := (spec.RLimit{Resource: "x"}).Number(); ok {
		t.Error("x is a resource")
	}
}

// TestSetRLimit: one of each, sorted, and nothing that was copied before is changed.
func TestSetRLimit(t *testing.T) {
	var l spec.Limits
	l.SetRLimit(spec.RLimit{Resource: "nofile", Soft: 1, Hard: 2})
	before := l
	l.SetRLimit(spec.RLimit{Resource: "core", Soft: 3, Hard: 3})
	l.SetRLimit(spec.RLimit{Resource: "nofile", Soft: 4, Hard: 5})
	if want := []spec.RLimit{{"core", 3, 3}, {"nofile", 4, 5}}; !slices.Equal(l.RLimits, want) {
		t.Errorf("got %v, want %v", l.RLimits, want)
	}
	if want := []spec.RLimit{{"nofile", 1, 2}}; !slices.Equal(before.RLimits, want) {
		t.Errorf("the copy is %v, want %v", before.RLimits, want)
	}
	if r, ok := l.RLimit("core"); !ok || r.Hard != 3 {
		t.Errorf("core is %v, %v", r, ok)
	}
	if _, ok := l.RLimit("cpu"); ok {
		t.Error("cpu was not set")
	}
}

func TestDevices(t *testing.T) {
	l := spec.Limits{
		IOReadBandwidthMax: []spec.DeviceLimit{{"/dev/a", 1}, {"/dev/b", 1}}, IOWriteIOPSMax: []spec.DeviceLimit{{"/dev/b", 1}, {"/dev/c", 1}},
	}
	if got, want := l.Devices(), []string{"/dev/a", "/dev/b", "/dev/c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCPUSet(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "0-2,4": "0-2,4", "4 0-1": "0-1,4", "3,2,1": "1-3", "0-0": "0", "7-8": "7-8", "0-1\n": "0-1", "8191": "8191", "1,1": "1",
	} {
		got, err := spec.ParseCPUSet(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", " ", ",", "x", "-1", "1-", "2-1", "8192", "0-99999", "999999999999", "1.5", "0-1-2", "+1"} {
		if got, err := spec.ParseCPUSet(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	if got := (spec.CPUSet{5, 1}); !got.Has(0) || got.Has(1) || !got.Has(2) || !got.Has(8) || got.Has(99) || got.String() != "0,2,8" {
		t.Errorf("%v", got)
	}
	a, b := spec.CPUSet{0xf}, spec.CPUSet{3, 1}
	if got := a.Without(b).String(); got != "2-3" {
		t.Errorf("0-3 without 0-1,8 is %s", got)
	}
	if got := b.Without(b); len(got) != 0 {
		t.Errorf("nothing is left but %v", got)
	}
}

func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"0-2,4", "1 3", "8191", "x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := spec.ParseCPUSet(text)
		if err != nil {
			return
		}
		again, err := spec.ParseCPUSet(s.String())
		if err != nil || again.String() != s.String() || len(s) > 1024 {
			t.Fatalf("%q is %s, and that is %v, %v", text, s, again, err)
		}
	})
}
