package config

import (
	"reflect"
	"slices"
	"testing"

	"github.com/rtask/rtask/sandbox/spec"
)

// TestExposure: the stricter the profile, the less is open, and root has more open than others.
func TestExposure(t *testing.T) {
	off, usual, strict := ExposureOf(profile(ProfileOff), true), ExposureOf(profile(ProfileDefault), false), ExposureOf(profile(ProfileStrict), false)
	if off.Word() != "DANGEROUS" || off.Score < 9.5 || strict.Score > 1.5 || usual.Score <= strict.Score || usual.Score >= off.Score {
		t.Errorf("off %v, default %v, strict %v", off.Score, usual.Score, strict.Score)
	}
	if asRoot := ExposureOf(profile(ProfileDefault), true); asRoot.Score <= usual.Score {
		t.Errorf("as root %v, not as root %v", asRoot.Score, usual.Score)
	}
	sum := 0.0
	for _, r := range usual.Rows {
		sum += r.Exposure
		if r.Name == "" || r.About == "" {
			t.Errorf("%+v", r)
		}
	}
	if sum < usual.Score-0.001 || sum > usual.Score+0.001 {
		t.Errorf("the rows add up to %v, not to %v", sum, usual.Score)
	}
}

// TestExposureKnowsSwitches: every switch that is true or false in a file closes something.
func TestExposureKnowsSwitches(t *testing.T) {
	open := ExposureOf(spec.Sandbox{}, true).Score
	for i := range reflect.TypeFor[spec.Sandbox]().NumField() {
		f := reflect.TypeFor[spec.Sandbox]().Field(i)
		if f.Type.Kind() != reflect.Bool || slices.Contains([]string{"HideRun", "HideUsers", "DynamicUser", "AsCaller"}, f.Name) {
			continue // no switch of a file
		}
		var s spec.Sandbox
		reflect.ValueOf(&s).Elem().Field(i).SetBool(true)
		if got := ExposureOf(s, true).Score; got >= open {
			t.Errorf("%s closes nothing", f.Name)
		}
	}
}
