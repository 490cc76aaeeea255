package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rtask/rtask/daemon/job"
	"github.com/rtask/rtask/sandbox/spec"
)

// metrics are the engine's. Label values are bounded: tasks of the configuration, and words of the API.
type metrics struct {
	registry   *prometheus.Registry
	duration   *prometheus.HistogramVec
	rejections *prometheus.CounterVec
	endings    *prometheus.CounterVec
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "task_duration_seconds", Help: "Time from the start of a task's process to its end.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600},
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
	m.registry.MustRegister(m.duration, m.rejections, m.endings, build)
	return m
}

// observe adds what is read from the jobs when somebody asks.
func (m *metrics) observe(jobs *job.Manager) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_jobs_running", Help: "Jobs that have not ended.",
	}, func() float64 { return float64(jobs.Running()) }))
}

// ended counts a job. Commands, whose names are anybody's choice, count as the task "".
func (m *metrics) ended(j job.Job) {
	status := "failure"
	if j.Succeeded() {
		status = "success"
	}
	reason := spec.Lost
	if j.Exit != nil {
		reason = j.Exit.Reason
	}
	m.endings.WithLabelValues(j.Task, status, string(reason)).Inc()
	if j.Task != "" && !j.StartedAt.IsZero() {
		m.duration.WithLabelValues(j.Task).Observe(j.EndedAt.Sub(j.StartedAt).Seconds())
	}
}

// rejected counts a refusal.
func (m *metrics) rejected(task, kind string) { m.rejections.WithLabelValues(task, kind).Inc() }
