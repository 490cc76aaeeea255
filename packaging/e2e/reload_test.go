package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// reloadedTasks are two tasks that say which version of the configuration they are of.
const reloadedTasks = `
task "reloaded" {
  command  = ["/bin/sh", "-c", "read -r n; echo \"$n of VERSION\""]
  blocking = true
  api_keys = ["demo", "reloads"]
  journal  = false
}
task "reloaded-later" {
  command   = ["/bin/sh", "-c", "read -r n; echo \"$n of VERSION\""]
  api_keys  = ["demo", "reloads"]
  retention = "10min"
  journal   = false
}
`

// reloads N FOLDER COMMAND… writes a new version of two tasks into FOLDER and has COMMAND reload it, N times, while clients run
// both of them through $API with $KEY. Each request must be answered, with what it sent, and by a version that was in force
// while it was made.
func reloads(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: reloads N FOLDER COMMAND…")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	r := &reloading{api: ts.Getenv("API"), key: ts.Getenv("KEY"), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	defer r.http.CloseIdleConnections()
	// next puts a version in force.
	next := func(version int64) {
		r.written.Store(version)
		text := strings.ReplaceAll(reloadedTasks, "VERSION", strconv.FormatInt(version, 10))
		ts.Check(os.WriteFile(filepath.Join(args[1], "reloaded.hcl"), []byte(text), 0o600))
		if version == 1 {
			ts.Check(ts.Exec("rtaskctl", "reload"))
		} else {
			ts.Check(ts.Exec(args[2], args[3:]...))
		}
		// Who sends a signal does not learn when it has been heeded.
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			got, err := r.blocking(0)
			ts.Check(err)
			if got == version {
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("version %d is not in force, %d is", version, got)
			}
		}
		r.loaded.Store(version)
	}
	next(1)

	var clients sync.WaitGroup
	quit := make(chan struct{})
	for i := range 4 {
		request := r.blocking
		if i == 3 {
			request = r.later
		}
		clients.Go(func() { r.repeat(quit, request) })
	}
	func() {
		defer clients.Wait()
		defer close(quit)
		for i := range int64(n) {
			next(2 + i)
		}
	}()
	ts.Logf("%d requests during %d reloads", r.number.Load(), n)
	if len(r.wrong) > 0 {
		ts.Fatalf("%d wrong: %s", len(r.wrong), strings.Join(r.wrong[:min(20, len(r.wrong))], "\n"))
	}
}

// reloading is the state of reloads.
type reloading struct {
	api, key string
	http     *http.Client
	number   atomic.Int64
	// written is the newest version on disk, loaded the newest that is known to be in force.
	written, loaded atomic.Int64

	mu    sync.Mutex // guards wrong
	wrong []string
}

// repeat makes requests until quit is closed.
func (r *reloading) repeat(quit chan struct{}, request func(number int64) (int64, error)) {
	for {
		select {
		case <-quit:
			return
		default:
		}
		n, least := r.number.Add(1), r.loaded.Load()
		version, err := request(n)
		if most := r.written.Load(); err == nil && (version < least || version > most) {
			err = fmt.Errorf("request %d was answered by version %d, in force were %d to %d", n, version, least, most)
		}
		if err != nil {
			r.mu.Lock()
			r.wrong = append(r.wrong, err.Error())
			r.mu.Unlock()
		}
	}
}

// ask makes one request.
func (r *reloading) ask(method, path, body string) (got result, err error) {
	q, err := http.NewRequest(method, r.api+path, strings.NewReader(body))
	if err != nil {
		return got, err
	}
	q.Header.Set("Authorization", "Bearer "+r.key)
	reply, err := r.http.Do(q)
	if err != nil {
		return got, err
	}
	defer reply.Body.Close()
	b, err := io.ReadAll(reply.Body)
	if err != nil {
		return got, err
	}
	if err := json.Unmarshal(b, &got); err != nil || reply.StatusCode > http.StatusAccepted {
		return got, fmt.Errorf("%s %s: %s %s", method, path, reply.Status, b)
	}
	return got, nil
}

// version checks a result, and returns the version of the task that gave it.
func version(number int64, got result) (int64, error) {
	var n, v int64
	if _, err := fmt.Sscanf(got.Stdout, "%d of %d\n", &n, &v); err != nil || n != number || got.Status != "success" {
		return 0, fmt.Errorf("request %d got %+v", number, got)
	}
	return v, nil
}

// blocking runs the task that is waited for.
func (r *reloading) blocking(number int64) (int64, error) {
	got, err := r.ask(http.MethodPost, "/tasks/reloaded", fmt.Sprintln(number))
	if err != nil {
		return 0, err
	}
	return version(number, got)
}

// later runs the one that is not, and asks for its result.
func (r *reloading) later(number int64) (int64, error) {
	got, err := r.ask(http.MethodPost, "/tasks/reloaded-later", fmt.Sprintln(number))
	if err != nil {
		return 0, err
	}
	got, err = r.ask(http.MethodGet, "/tasks/reloaded-later/"+got.TaskID+"?wait=1min", "")
	if err != nil {
		return 0, err
	}
	return version(number, got)
}
