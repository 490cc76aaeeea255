package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// scrapeTimeout bounds one collection; Prometheus's own default is 10 s.
const scrapeTimeout = 8 * time.Second

// newMetrics serves GET /metrics: the engine's metrics and the gateway's own.
func newMetrics(engine rtaskv1connect.GatewayServiceClient, version string) http.Handler {
	own := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rtask_gateway_build_info", Help: "1, with the version of rtask-gateway.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	own.MustRegister(build)
	gatherer := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := engineMetrics(engine)
		// That the engine does not answer is a metric, and no reason to withhold the others.
		name, help, kind, up := "rtask_engine_up", "1 if the engine answers.", dto.MetricType_GAUGE, 1.0
		if err != nil {
			up = 0
		}
		return append(families, &dto.MetricFamily{
			Name: &name, Help: &help, Type: &kind, Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &up}}},
		}), nil
	})
	metrics := promhttp.HandlerFor(prometheus.Gatherers{own, gatherer}, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/metrics" {
			notFound(w, r)
			return
		}
		defer working(r)()
		allow(w, r, metrics.ServeHTTP, http.MethodGet, http.MethodHead)
	})
}

func engineMetrics(engine rtaskv1connect.GatewayServiceClient) ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	reply, err := engine.Metrics(ctx, connect.NewRequest(&rtaskv1.MetricsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("cannot ask the engine: %w", err)
	}
	dec := expfmt.NewDecoder(bytes.NewReader(reply.Msg.Families), expfmt.NewFormat(expfmt.TypeProtoDelim))
	var families []*dto.MetricFamily
	for {
		f := &dto.MetricFamily{}
		err := dec.Decode(f)
		if errors.Is(err, io.EOF) {
			return families, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the engine's metrics: %w", err)
		}
		families = append(families, f)
	}
}
