package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// roundTime is about how long one side of a round takes.
	roundTime = 1500 * time.Millisecond
	// leastRequests of a round, so that a p99 means something; mostRequests bounds it.
	leastRequests, mostRequests = 100, 4000
)

// load is what one side did in one round.
type load struct {
	rate, p50, p99 float64 // requests a second, milliseconds
}

// side is one of the two that take turns.
type side struct {
	url    string
	groups []controlGroup
	push   *push // what is sent; nil: nothing, with the key
	loads  []load
	cpu    usage
	served int
}

// measureHTTP compares a blocking request that runs /bin/true, and what it costs.
func measureHTTP(ctx context.Context, m *machine, rounds int) ([]row, error) {
	const section = "HTTP, blocking /bin/true"
	var rows, costs []row
	for _, clients := range []int{1, 4, 16} {
		ours := &side{url: rtaskURL + "true", groups: rtaskGroups()}
		theirs := &side{url: webhookURL, groups: webhookGroups()}
		if err := m.alternate(ctx, ours, theirs, clients, rounds); err != nil {
			return nil, err
		}
		who := strconv.Itoa(clients) + " clients"
		if clients == 1 {
			who = "1 client"
		}
		rows = append(rows,
			rate(section, who, "requests/s", ours.median(load.perSecond), theirs.median(load.perSecond), "webhook").aiming("≥ 1.0"),
			cost(section, who, "p50 ms", ours.median(load.middle), theirs.median(load.middle), "webhook"),
			cost(section, who, "p99 ms", ours.median(load.slow), theirs.median(load.slow), "webhook"))
		costs = append(costs, cpuRows("CPU for a blocking request", who, ours, theirs)...)
	}
	return append(rows, costs...), nil
}

// alternate has both sides take turns, and fills in what came of it.
func (m *machine) alternate(ctx context.Context, ours, theirs *side, clients, rounds int) error {
	for _, s := range []*side{ours, theirs} {
		if err := m.turn(ctx, s, clients, leastRequests); err != nil { // not counted: it says how many fill a round
			return err
		}
	}
	requests := [2]int{requestsFor(ours, clients), requestsFor(theirs, clients)}
	ours.reset()
	theirs.reset()
	for range rounds {
		for i, s := range []*side{ours, theirs} {
			if err := m.turn(ctx, s, clients, requests[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l load) perSecond() float64 { return l.rate }
func (l load) middle() float64    { return l.p50 }
func (l load) slow() float64      { return l.p99 }

// median returns the median of one figure over the rounds.
func (s *side) median(figure func(load) float64) float64 {
	var values []float64
	for _, l := range s.loads {
		values = append(values, figure(l))
	}
	return median(values)
}

// perRequest is the processor time of all parts for a request.
func (s *side) perRequest() float64 { return s.cpu.total() / float64(s.served) }

func (s *side) reset() { s.loads, s.cpu, s.served = nil, nil, 0 }

// requestsFor returns how many requests fill a round, as far as the warming up tells; each client makes as many.
func requestsFor(s *side, clients int) int {
	n := int(s.median(load.perSecond) * roundTime.Seconds())
	n = min(max(n, leastRequests), mostRequests)
	return n / clients * clients
}

// turn has hey make the requests of one round, and adds what came of it.
func (m *machine) turn(ctx context.Context, s *side, clients, requests int) error {
	requests = requests / clients * clients // hey leaves the rest out
	before, err := use(s.groups)
	if err != nil {
		return err
	}
	args := []string{"-o", "csv", "-n", strconv.Itoa(requests), "-c", strconv.Itoa(clients), "-t", "60", "-m", http.MethodPost}
	if s.push == nil {
		args = append(args, "-H", "Authorization: Bearer "+m.key)
	} else {
		args = append(args, "-D", s.push.file)
		for _, h := range s.push.headers {
			args = append(args, "-H", h)
		}
	}
	out, err := output(ctx, "hey", append(args, s.url)...)
	if err != nil {
		return err
	}
	after, err := use(s.groups)
	if err != nil {
		return err
	}
	l, err := readHey(out, requests)
	if err != nil {
		return fmt.Errorf("%s: %w", s.url, err)
	}
	s.loads = append(s.loads, l)
	s.served += requests
	s.cpu = s.cpu.plus(after.minus(before))
	return nil
}

// readHey reads hey's CSV: a line for each request that was answered, with how long it took, its status and when it began,
// both times in seconds. Requests that failed are not in it.
func readHey(out string, requests int) (load, error) {
	records, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(records) == 0 {
		return load{}, fmt.Errorf("cannot read what hey printed: %w", err)
	}
	column := map[string]int{}
	for i, name := range records[0] {
		column[name] = i
	}
	var times []float64
	var end float64
	for _, r := range records[1:] {
		if status := r[column["status-code"]]; status != "200" {
			return load{}, fmt.Errorf("a reply was %s", status)
		}
		took, err1 := strconv.ParseFloat(r[column["response-time"]], 64)
		at, err2 := strconv.ParseFloat(r[column["offset"]], 64)
		if err1 != nil || err2 != nil {
			return load{}, fmt.Errorf("cannot read what hey printed: %v", r)
		}
		times = append(times, took*1000)
		end = max(end, at+took)
	}
	if len(times) != requests {
		return load{}, fmt.Errorf("%d of %d requests were answered", len(times), requests)
	}
	return load{rate: float64(requests) / end, p50: percentile(times, 50), p99: percentile(times, 99)}, nil
}

// post makes one request, as hey does.
func (m *machine) post(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return fmt.Errorf("cannot make a request: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+m.key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("cannot request: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("cannot read the reply: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the reply is %s: %s", resp.Status, body)
	}
	return nil
}
