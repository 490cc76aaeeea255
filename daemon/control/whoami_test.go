package control

import (
	"slices"
	"testing"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/auth"
)

// Each local caller is told what it is, and may call what it is told.
func TestWhoAmIHere(t *testing.T) {
	f := newFixture(t, tasks)
	for kind, may := range map[auth.Kind]string{auth.User: "Start", auth.Operator: "Start", auth.Admin: "AddKey"} {
		m := must[rtaskv1.WhoAmIResponse](t)(f.as(peers()[kind]).WhoAmI(t.Context(), &rtaskv1.WhoAmIRequest{}))
		if m.Kind != kind.String() || m.User == "" || m.Identity != "" || m.ServerTime == nil || !slices.Contains(m.Methods, may) {
			t.Errorf("%v: %v", kind, m)
		}
		if slices.Contains(m.Methods, "AddKey") != (kind == auth.Admin) || !slices.IsSorted(m.Methods) {
			t.Errorf("%v may call %q", kind, m.Methods)
		}
	}
}
