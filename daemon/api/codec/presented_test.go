package codec

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// What a gateway says of a client is what the engine takes it to have said, and half a key is none.
func TestPresented(t *testing.T) {
	var got Presented
	server := connect.NewServer()
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/x/Y"},
		Handler: func(ctx context.Context, _ connect.Spec, _ connect.ServerStream) error {
			got = PresentedIn(ctx)
			return connect.NewError(connect.CodeInternal, "")
		},
	})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	for name, c := range map[string]struct {
		head http.Header
		want Presented
	}{
		"nothing":       {http.Header{}, Presented{}},
		"all":           {http.Header{headerKey: {"cnRr"}, headerRemote: {"unix"}, headerTask: {"a"}}, Presented{Key: []byte("rtk"), RemoteAddr: "unix", Task: "a"}},
		"half":          {http.Header{headerKey: {"cnRr!"}}, Presented{Key: []byte{}}},
		"two":           {http.Header{headerKey: {"cnRr", "cnRs"}}, Presented{Key: []byte{}}},
		"joined":        {http.Header{headerKey: {"cnRr,cnRs"}}, Presented{Key: []byte{}}},
		"empty":         {http.Header{headerKey: {""}}, Presented{Key: []byte{}}},
		"not printable": {http.Header{headerRemote: {"a\xff"}, headerTask: {"\xfeb"}}, Presented{RemoteAddr: `a\xff`, Task: `\xfeb`}},
	} {
		got = Presented{RemoteAddr: "no call came"}
		r := httptest.NewRequest("POST", "/x/Y", http.NoBody)
		r.Header = c.head
		r.Header.Set("Content-Type", "application/json")
		mux.ServeHTTP(httptest.NewRecorder(), r)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
