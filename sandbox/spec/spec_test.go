package spec_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/rtask/rtask/sandbox/spec"
)

func TestControllers(t *testing.T) {
	one := uint64(1)
	disk := []spec.DeviceLimit{{Device: "/dev/vda", Value: 1}}
	tests := []struct {
		limits spec.Limits
		want   []string
	}{
		{spec.Limits{}, nil},
		{spec.Limits{MemoryMax: &one}, []string{"memory"}},
		{spec.Limits{CPUQuota: &one}, []string{"cpu"}},
		{spec.Limits{TasksMax: &one}, []string{"pids"}},
		{spec.Limits{TasksMax: &one, CPUQuota: &one, MemoryMax: new(uint64)}, []string{"cpu", "memory", "pids"}},
		{spec.Limits{MemoryHigh: &one}, []string{"memory"}},
		{spec.Limits{MemorySwapMax: new(uint64)}, []string{"memory"}},
		{spec.Limits{CPUWeight: new(uint64)}, []string{"cpu"}},
		{spec.Limits{AllowedCPUs: spec.CPUSet{1}}, []string{"cpuset"}},
		{spec.Limits{IOWeight: &one}, []string{"io"}},
		{spec.Limits{IOReadBandwidthMax: disk}, []string{"io"}},
		{spec.Limits{IOWriteBandwidthMax: disk}, []string{"io"}},
		{spec.Limits{IOReadIOPSMax: disk}, []string{"io"}},
		{spec.Limits{IOWriteIOPSMax: disk}, []string{"io"}},
	}
	for _, tt := range tests {
		if got := tt.limits.Controllers(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v needs %v, want %v", tt.limits, got, tt.want)
		}
		if got := tt.limits.IsZero(); got != (tt.want == nil) {
			t.Errorf("%+v: IsZero is %v", tt.limits, got)
		}
	}
}

func exits() []spec.Exit {
	v, infinity := uint64(1), uint64(spec.Infinity)
	return []spec.Exit{
		{Job: "id"},
		{
			Job: "id", Reason: spec.OOM, Code: -1, Signal: 9, Detail: "not UTF-8: \xff\xfe", Ended: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC),
			Usage:    spec.Usage{CPUUsec: &v, MemoryPeak: &infinity, TasksPeak: new(uint64), IOReadBytes: &v, IOWriteOps: new(uint64)},
			LogBytes: 1 << 63, LogDropped: 5, Stdout: []byte{0, 255, '\n'}, Stderr: []byte("x"), Truncated: true,
		},
		{Job: "large", Stdout: make([]byte, 1<<20)},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, e := range exits() {
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeExit(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, want %+v", got, e)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if _, err := spec.DecodeExit(b[:n]); !errors.Is(err, spec.ErrRecord) {
				t.Errorf("cut off at %d of %d: error %v", n, len(b), err)
			}
		}
		if _, err := spec.DecodeExit(append(b, 0)); !errors.Is(err, spec.ErrRecord) {
			t.Errorf("with a byte more: error %v", err)
		}
	}
}

func TestRecordVersions(t *testing.T) {
	exit := map[string]any{"job": "id", "code": 3, "newer": "field"}
	tests := []struct {
		name   string
		record any
		ok     bool
	}{
		{"this", map[string]any{"v": 1, "exit": exit}, true},
		{"with more", map[string]any{"v": 1, "exit": exit, "newer": 1}, true},
		{"later", map[string]any{"v": 2, "exit": exit}, true},
		{"none", map[string]any{"exit": exit}, false},
		{"zero", map[string]any{"v": 0, "exit": exit}, false},
		{"no job", map[string]any{"v": 1, "exit": map[string]any{"code": 0}}, false},
		{"no exit", map[string]any{"v": 1}, false},
		{"a list", []int{1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := cbor.Marshal(tt.record)
			if err != nil {
				t.Fatal(err)
			}
			e, err := spec.DecodeExit(b)
			if tt.ok && (err != nil || e.Code != 3) || !tt.ok && !errors.Is(err, spec.ErrRecord) {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
}

// FuzzDecodeExit: no bytes panic, and what is a record stays one.
func FuzzDecodeExit(f *testing.F) {
	for _, e := range exits()[:2] {
		b, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\xa2\x61v\x01\x64exit\xbf\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := spec.DecodeExit(b)
		if err != nil {
			if !errors.Is(err, spec.ErrRecord) {
				t.Errorf("error %v", err)
			}
			return
		}
		if e.Job == "" {
			t.Error("a record of no job")
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeExit(again)
		if err != nil {
			t.Fatal(err)
		}
		if got.Job != e.Job || got.Code != e.Code || got.Reason != e.Reason || !got.Ended.Equal(e.Ended) {
			t.Errorf("got %+v, want %+v", got, e)
		}
	})
}
