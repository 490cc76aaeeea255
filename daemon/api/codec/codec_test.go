package codec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

const latin1 = "caf\xe9"

// echo answers with what it was asked, in the messages that have bytes.
type echo struct {
	rtaskv1connect.UnimplementedJobServiceHandler
}

func (echo) Start(_ context.Context, r *rtaskv1.StartRequest) (*rtaskv1.StartResponse, error) {
	if r.Name == "fail"+latin1 {
		e := connect.NewError(connect.CodeNotFound, "there is no "+r.Name)
		return nil, e.WithDetail(Detail(&rtaskv1.Error{Kind: "not-found", Diagnostics: []*rtaskv1.Diagnostic{{Source: "x" + latin1}}}))
	}
	all := append([]string{r.Name}, r.Arguments...)
	for _, name := range []string{latin1, "PLAIN"} {
		if v, ok := r.Environment[name]; ok {
			all = append(all, name+"="+v)
		}
	}
	all = append(all, r.Path, r.WorkingDirectory, r.SearchPath)
	for _, p := range r.Properties {
		all = append(all, p.Name+"="+p.Value)
	}
	return &rtaskv1.StartResponse{Job: &rtaskv1.Job{Command: all, Detail: "cannot enter " + r.WorkingDirectory}}, nil
}

func (echo) Status(context.Context, *rtaskv1.StatusRequest) (*rtaskv1.StatusResponse, error) {
	return &rtaskv1.StatusResponse{Job: &rtaskv1.Job{Command: []string{"é"}}, Usage: &rtaskv1.Usage{
		Processes: []*rtaskv1.Process{{Pid: 1, Name: "plain"}, {Pid: 2, Name: latin1}},
	}}, nil
}

func (echo) StreamLogs(_ context.Context, r *rtaskv1.StreamLogsRequest, _ rtaskv1connect.JobServiceStreamLogsServerStream) error {
	return connect.NewError(connect.CodeNotFound, "no job "+latin1)
}

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	server := connect.NewServer(ErrorTexts)
	rtaskv1connect.RegisterJobServiceHandler(server, echo{})
	connecthttp.Mount(mux, server, Options()...)
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// clients returns a client of the server for each protocol.
func clients(s *httptest.Server) map[string]rtaskv1connect.JobServiceClient {
	all := map[string]rtaskv1connect.JobServiceClient{}
	for name, options := range map[string][]connecthttp.Option{"connect": nil, "grpc": {connecthttp.WithGRPC()}, "grpc-web": {connecthttp.WithGRPCWeb()}} {
		t := connecthttp.NewTransport(s.Client(), s.URL, append(Options(), options...)...)
		all[name] = rtaskv1connect.NewJobServiceClient(connect.NewClient(t))
	}
	return all
}

// TestBytes checks that arguments, variables, folders and names arrive as they were sent, whatever their bytes.
func TestBytes(t *testing.T) {
	s := serve(t)
	for name, c := range clients(s) {
		t.Run(name, func(t *testing.T) {
			m := &rtaskv1.StartRequest{
				Name: "./" + latin1, Arguments: []string{"größe", "", latin1, "\xff\x00\x80"}, Path: "/bin/" + latin1, WorkingDirectory: "/srv/" + latin1,
				SearchPath: "/bin:" + latin1, Environment: map[string]string{latin1: "\xfe", "PLAIN": "ü"}, Input: []byte(latin1),
				Properties: []*rtaskv1.Property{{Name: "read_only_paths", Value: "/" + latin1}, {Name: "nice", Value: "5"}},
			}
			sent := proto.Clone(m)
			r, err := c.Start(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{
				"./" + latin1, "größe", "", latin1, "\xff\x00\x80", latin1 + "=\xfe", "PLAIN=ü", "/bin/" + latin1, "/srv/" + latin1, "/bin:" + latin1,
				"read_only_paths=/" + latin1, "nice=5",
			}
			if got := r.Job.Command; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Errorf("command = %q, want %q", got, want)
			}
			if got := r.Job.Detail; got != `cannot enter /srv/caf\xe9` {
				t.Errorf("detail = %q", got)
			}
			if !proto.Equal(m, sent) {
				t.Error("the message was changed by sending it")
			}
			status, err := c.Status(t.Context(), &rtaskv1.StatusRequest{Job: "no UTF-8: " + latin1})
			if err != nil {
				t.Fatal(err)
			}
			if p := status.Usage.Processes; p[0].Name != "plain" || p[1].Name != latin1 || p[1].Encoding != "" {
				t.Errorf("processes = %v", p)
			}
		})
	}
}

// TestErrors checks that an error says what it has to say, whatever bytes are in its text and its detail.
func TestErrors(t *testing.T) {
	s := serve(t)
	for name, c := range clients(s) {
		_, err := c.Start(t.Context(), &rtaskv1.StartRequest{Name: "fail" + latin1})
		var e *connect.Error
		if !errors.As(err, &e) || e.Code() != connect.CodeNotFound || e.Message() != `there is no failcaf\xe9` || len(e.Details()) != 1 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := DetailOf(err); d.GetKind() != "not-found" || d.Diagnostics[0].Source != `xcaf\xe9` {
			t.Errorf("%s: detail %v", name, d)
		}
		stream, err := c.StreamLogs(t.Context(), &rtaskv1.StreamLogsRequest{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := stream.Receive(); !errors.As(err, &e) || e.Message() != `no job caf\xe9` {
			t.Errorf("%s: stream: %v", name, err)
		}
		_ = stream.Close()
	}
	if err := printableError(errors.New("no caf\xe9")); connect.CodeOf(err) != connect.CodeUnknown || !strings.Contains(err.Error(), `no caf\xe9`) {
		t.Errorf("an error without a code: %v", err)
	}
}

// TestJSON checks what a client without this package sees, and what it may send.
func TestJSON(t *testing.T) {
	s := serve(t)
	post := func(method, body string) string {
		r, err := s.Client().Post(s.URL+"/rtask.v1.JobService/"+method, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Body.Close() }()
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(bytes.TrimSpace(data)), " ", "")
	}
	for body, want := range map[string]string{
		`{"name":"ls","arguments":["é"]}`:                                              `{"job":{"command":["ls","é","","",""],"detail":"cannotenter"}}`,
		`{"encoding":"base64","name":"bHM=","arguments":["Y2Fm6Q=="],"path":"L2xz"}`:   `{"job":{"command":["bHM=","Y2Fm6Q==","L2xz","",""],"detail":"cannotenter","encoding":"base64"}}`,
		`{"encoding":"base64","name":"ls"}`:                                            `{"code":"invalid_argument"`,
		`{"encoding":"hex","name":"ls"}`:                                               `"hex\"of`,
		"{\"name\":\"caf\xe9\"}":                                                       `invalid`,
		`{"name":"ls","properties":[{"name":"a","value":"/w==","encoding":"base64"}]}`: `"command":["bHM=","","","","YT3/"]`,
	} {
		if got := post("Start", body); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if got, want := post("Status", "{}"), `{"job":{"command":["é"]},"usage":{"processes":[{"pid":1,"name":"plain"},{"pid":2,"name":"Y2Fm6Q==","encoding":"base64"}]}}`; got != want {
		t.Errorf("Status: %s, want %s", got, want)
	}
}

// TestByteFields holds the list of byte fields and rtask.proto together.
func TestByteFields(t *testing.T) {
	known := byteFields()
	messages := rtaskv1.File_rtask_v1_rtask_proto.Messages()
	for i := range messages.Len() {
		d := messages.Get(i)
		if has, listed := d.Fields().ByName(encodingField) != nil, known[d.Name()] != nil; has != listed {
			t.Errorf("%s has a field encoding: %v; it is in byteFields: %v", d.Name(), has, listed)
		}
		for _, f := range known[d.Name()] {
			if d.Fields().ByName(f) == nil {
				t.Errorf("%s has no field %s", d.Name(), f)
			}
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{"": "", "größe\n": "größe\n", latin1: `caf\xe9`, "\xf0\x9f": `\xf0\x9f`, "\ufffd": "\ufffd"} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzStart checks that no text breaks a request, and that what is bytes arrives as it was.
func FuzzStart(f *testing.F) {
	f.Add("ls", "-l", "HOME", "/", "plain")
	f.Add(latin1, "\xff", "\x80", "", latin1)
	f.Fuzz(func(t *testing.T, name, argument, variable, folder, parameter string) {
		b := binary{newSchema()}
		m := &rtaskv1.StartRequest{
			Name: name, Arguments: []string{argument, name}, Environment: map[string]string{variable: argument}, WorkingDirectory: folder,
			Parameters: []*rtaskv1.Parameter{{Name: "p", Value: parameter}}, Properties: []*rtaskv1.Property{{Name: "q", Value: parameter}},
		}
		var data bytes.Buffer
		if err := b.MarshalWrite(t.Context(), &data, m); err != nil {
			t.Fatal(err)
		}
		got := &rtaskv1.StartRequest{}
		if err := b.UnmarshalRead(t.Context(), &data, got); err != nil {
			t.Fatal(err)
		}
		m.Parameters[0].Value = Printable(parameter)
		if !proto.Equal(got, m) {
			t.Errorf("%v arrived as %v", m, got)
		}
	})
}
