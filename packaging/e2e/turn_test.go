package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// in-turn N KEYFILE TASK has a blocking task run N times (or a part of them, see count) over HTTP on one connection, each time as soon as the answer of the
// time before has come. Each must succeed, and be a job of its own.
func inTurn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: in-turn N KEYFILE TASK")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	n = count(n)
	key := strings.TrimSpace(ts.ReadFile(args[1]))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	begin, seen := time.Now(), map[string]bool{}
	for i := range n {
		r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:8800/tasks/"+args[2], nil)
		ts.Check(err)
		r.Header.Set("Authorization", "Bearer "+key)
		reply, err := client.Do(r)
		ts.Check(err)
		b, err := io.ReadAll(reply.Body)
		ts.Check(err)
		ts.Check(reply.Body.Close())
		var got result
		if reply.StatusCode != http.StatusOK || json.Unmarshal(b, &got) != nil || got.Status != "success" || seen[got.TaskID] {
			ts.Fatalf("request %d got %s: %s", i+1, reply.Status, b)
		}
		seen[got.TaskID] = true
	}
	ts.Logf("%d requests, one after the other, in %v", n, time.Since(begin).Round(time.Millisecond))
}
