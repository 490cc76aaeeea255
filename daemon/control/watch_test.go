package control

import (
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// Each stream tells the gateway first on which terms remote clients are let in, and again when that has changed, and only then: what is
// revoked may be long.
func TestWatchTellsTrust(t *testing.T) {
	f := newFixture(t, "")
	var trust atomic.Pointer[rtaskv1.Trust]
	f.Options.Trust = trust.Load
	stream, err := f.net(nil, "").Watch(t.Context(), &rtaskv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *rtaskv1.Trust { t.Helper(); return must[rtaskv1.WatchResponse](t)(stream.Receive()).Remote }
	if got := next(); got == nil || got.On {
		t.Errorf("without an authority: %v", got)
	}
	f.Changed()
	if got := next(); got != nil {
		t.Errorf("it is told again: %v", got)
	}
	want := &rtaskv1.Trust{
		On: true, Authorities: [][]byte{{1}}, ServerChain: [][]byte{{2}},
		Revoked: []*rtaskv1.RevokedCertificates{{Issuer: []byte{3}, Serials: [][]byte{{4}, {5}}}},
	}
	trust.Store(want)
	f.Changed()
	got := next()
	for got == nil { // what comes every two seconds
		got = next()
	}
	if !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}
	again, err := f.net(nil, "").Watch(t.Context(), &rtaskv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := must[rtaskv1.WatchResponse](t)(again.Receive()).Remote; !proto.Equal(got, want) {
		t.Errorf("the next stream: %v", got)
	}
}

// A request to enrol is handed on with its client's address, and where there is no authority it is refused.
func TestEnroll(t *testing.T) {
	f := newFixture(t, "")
	r, err := f.net(nil, "").Enroll(t.Context(), &rtaskv1.EnrollRequest{Path: "/enroll", Body: make([]byte, 64<<10)})
	want := `{"error":"bad-request","error_description":"the body is not the JSON of such a request"}`
	if err != nil || r.Status != 400 || r.ContentType != "application/json" || string(r.Body) != want {
		t.Errorf("%v, %v", r, err)
	}
}
