package daemon

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rtask/rtask/daemon/control"
	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

// metrics are the engine's. Label values are bounded: tasks of the configuration, and words of the API.
type metrics struct {
	registry   *prometheus.Registry
	durations  *durations
	rejections *prometheus.CounterVec
	requests   *prometheus.CounterVec
	keys       prometheus.Counter
	remote     *prometheus.CounterVec
	enrolments *prometheus.CounterVec
	endings    *prometheus.CounterVec
	success    *prometheus.GaugeVec
	cpu        *prometheus.CounterVec
	memory     *prometheus.GaugeVec
	oom        *prometheus.CounterVec
}

// newMetrics makes them. buckets are the bounds of a task's histogram, nil: the usual ones.
func newMetrics(version string, buckets func(task string) []float64) *metrics {
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		durations: &durations{buckets: buckets, byTask: map[string]*duration{}},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_requests_total", Help: "Requests over HTTP to start a task, by the API key and what became of them.",
		}, []string{"task", "key", "result"}),
		keys: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rtask_key_failures_total", Help: "Requests without a good API key.",
		}),
		remote: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_remote_refused_total", Help: "Handshakes and calls of remote clients that were refused.",
		}, []string{"kind"}),
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_enrolments_total", Help: "Requests for client certificates, by what was shown and what became of them.",
		}, []string{"proof", "result"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rtask_last_success_timestamp_seconds", Help: "When a job of the task last succeeded, in Unix time.",
		}, []string{"task"}),
		cpu: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_cpu_seconds_total", Help: "Processor time of jobs that have ended, where the kernel tells.",
		}, []string{"task"}),
		memory: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rtask_memory_peak_bytes", Help: "The most memory that the last job used, where the kernel tells.",
		}, []string{"task"}),
		oom: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_oom_kills_total", Help: "Jobs that were killed at their memory_max.",
		}, []string{"task"}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "task_rejection_total", Help: "Requests that were refused before anything ran.",
		}, []string{"task", "reason"}),
		endings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtask_jobs_ended_total", Help: "Jobs that have ended.",
		}, []string{"task", "status", "reason"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rtask_engine_build_info", Help: "1, with the version of rtaskd.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_engine_goroutines", Help: "Goroutines of rtaskd.",
	}, func() float64 { return float64(runtime.NumGoroutine()) }))
	m.registry.MustRegister(m.durations, m.rejections, m.requests, m.keys, m.remote, m.enrolments, m.endings, m.success, m.cpu, m.memory, m.oom, build)
	return m
}

// observe adds what is read from the jobs and the configuration when somebody asks.
func (m *metrics) observe(jobs *job.Manager, snapshot func() control.Snapshot) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_jobs_running", Help: "Jobs that have not ended.",
	}, func() float64 { return float64(jobs.Running()) }), &states{jobs}, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_config_last_reload_successful", Help: "1 if the configuration was good when it was last read, 0 if it had errors.",
	}, func() float64 {
		if snapshot().Diagnostics.HasErrors() {
			return 0
		}
		return 1
	}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read, in Unix time; 0: there is none.",
	}, func() float64 {
		if at := snapshot().ReadAt; !at.IsZero() {
			return float64(at.UnixNano()) / 1e9
		}
		return 0
	}))
}

// ended counts a job. Commands, whose names are anybody's choice, count as the task "".
func (m *metrics) ended(j job.Job) {
	e := j.Exit
	m.endings.WithLabelValues(j.Task, e.Status(), string(e.Reason)).Inc()
	if j.Succeeded() {
		m.success.WithLabelValues(j.Task).Set(float64(j.EndedAt.UnixNano()) / 1e9)
	}
	if e.Usage.CPUUsec != nil {
		m.cpu.WithLabelValues(j.Task).Add(float64(*e.Usage.CPUUsec) / 1e6)
	}
	if e.Usage.MemoryPeak != nil {
		m.memory.WithLabelValues(j.Task).Set(float64(*e.Usage.MemoryPeak))
	}
	if e.Reason == spec.OOM {
		m.oom.WithLabelValues(j.Task).Inc()
	}
	if j.Task != "" && !j.StartedAt.IsZero() {
		m.durations.observe(j.Task, j.EndedAt.Sub(j.StartedAt).Seconds())
	}
}

// observeCertificates adds when the certificates end that all remote clients depend on: "authority" and "server". until returns them in
// Unix time.
func (m *metrics) observeCertificates(until func() map[string]time.Time) {
	m.registry.MustRegister(expiries{until})
}

// expiries are when certificates end.
type expiries struct{ until func() map[string]time.Time }

func expiryDesc() *prometheus.Desc {
	return prometheus.NewDesc("rtask_remote_certificate_expiry_timestamp_seconds",
		"When the certificates end that all remote clients depend on, in Unix time.", []string{"what"}, nil)
}

// Describe implements prometheus.Collector.
func (expiries) Describe(to chan<- *prometheus.Desc) { to <- expiryDesc() }

// Collect implements prometheus.Collector.
func (e expiries) Collect(to chan<- prometheus.Metric) {
	for what, at := range e.until() {
		to <- prometheus.MustNewConstMetric(expiryDesc(), prometheus.GaugeValue, float64(at.Unix()), what)
	}
}

// refusedRemote counts refusals of remote clients.
func (m *metrics) refusedRemote(kind string, n uint64) {
	m.remote.WithLabelValues(kind).Add(float64(n))
}

// enrolled counts a request for a client certificate.
func (m *metrics) enrolled(proof, result string) { m.enrolments.WithLabelValues(proof, result).Inc() }

// requested counts a request over HTTP: key is the name of a good key, or "".
func (m *metrics) requested(task, key, result string) {
	m.requests.WithLabelValues(task, key, result).Inc()
}

// rejected counts a refusal.
func (m *metrics) rejected(task, kind string) {
	m.rejections.WithLabelValues(task, kind).Inc()
	if kind == "unauthorized" {
		m.keys.Inc()
	}
}

// states are the jobs that have not ended, by state, and those that wait, by task.
type states struct{ jobs *job.Manager }

func statesDesc() (jobs, queue *prometheus.Desc) {
	return prometheus.NewDesc("rtask_jobs", "Jobs that have not ended.", []string{"state"}, nil),
		prometheus.NewDesc("rtask_queue_depth", "Jobs of the task that wait for their turn.", []string{"task"}, nil)
}

// Describe implements prometheus.Collector.
func (s *states) Describe(to chan<- *prometheus.Desc) {
	jobs, queue := statesDesc()
	to <- jobs
	to <- queue
}

// Collect implements prometheus.Collector.
func (s *states) Collect(to chan<- prometheus.Metric) {
	jobs, queue := statesDesc()
	states, waiting := s.jobs.Count()
	for _, state := range []job.State{job.Queued, job.Running, job.Stopping} {
		to <- prometheus.MustNewConstMetric(jobs, prometheus.GaugeValue, float64(states[state]), string(state))
	}
	for task, n := range waiting {
		to <- prometheus.MustNewConstMetric(queue, prometheus.GaugeValue, float64(n), task)
	}
}

// durations is the histogram task_duration_seconds, whose bounds each task has for itself.
type durations struct {
	buckets func(task string) []float64

	mu     sync.Mutex // guards byTask
	byTask map[string]*duration
}

type duration struct {
	bounds []float64
	prometheus.Histogram
}

// usualBuckets are the bounds of tasks that do not name others, in seconds.
func usualBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600}
}

// observe counts one. A task whose bounds have changed begins anew.
func (d *durations) observe(task string, seconds float64) {
	bounds := d.buckets(task)
	if len(bounds) == 0 {
		bounds = usualBuckets()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.byTask[task]
	if h == nil || !slices.Equal(h.bounds, bounds) {
		h = &duration{bounds, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "task_duration_seconds", Help: "Time from the start of a task's process to its end.",
			Buckets: bounds, ConstLabels: prometheus.Labels{"task": task},
		})}
		d.byTask[task] = h
	}
	h.Observe(seconds)
}

// Describe implements prometheus.Collector. What there will be is not known before.
func (d *durations) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (d *durations) Collect(to chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.byTask {
		h.Histogram.Collect(to)
	}
}
