package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
	"github.com/rtask/rtask/daemon/api/rtask/v1/rtaskv1connect"
)

// scrapeTimeout bounds one collection; Prometheus's own default is 10 s.
const scrapeTimeout = 8 * time.Second

// credentialMetrics is what a scraper has to present, where there is such a credential.
const credentialMetrics = "metrics.token"

// newMetrics serves GET /metrics: the engine's metrics and the gateway's own, to clients that may read them.
func newMetrics(engine rtaskv1connect.GatewayServiceClient, o Options) http.Handler {
	own := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rtask_gateway_build_info", Help: "1, with the version of rtask-gateway.", ConstLabels: prometheus.Labels{"version": o.Version},
	})
	build.Set(1)
	own.MustRegister(build, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rtask_gateway_goroutines", Help: "Goroutines of rtask-gateway.",
	}, func() float64 { return float64(runtime.NumGoroutine()) }))
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
	token := o.metricsToken()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !ours(r):
			writeProblem(w, problem{
				Kind:   rtaskv1.KindForbidden,
				Detail: "the Host header does not name this machine: ask for the metrics at localhost, by an IP address, or by the machine's host name",
			})
			return
		case token != nil && subtle.ConstantTimeCompare(presentedKey(r), token) != 1:
			writeProblem(w, problem{Kind: rtaskv1.KindUnauthorized, Detail: "the metrics need the token of the credential " + credentialMetrics})
			return
		}
		if r.URL.EscapedPath() != "/metrics" {
			notFound(w, r)
			return
		}
		defer working(r)()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTimeout + writeTimeout)) // ignore the error: the server may not support deadlines
		allow(w, r, metrics.ServeHTTP, http.MethodGet, http.MethodHead)
	})
}

// metricsToken is the credential that a scraper has to present; nil: it needs none. One that cannot be read, or is empty, nobody has.
func (o Options) metricsToken() []byte {
	if o.CredentialsDir == "" {
		return nil
	}
	token, err := os.ReadFile(filepath.Join(o.CredentialsDir, credentialMetrics))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	token = bytes.TrimSpace(token)
	if err == nil && len(token) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		o.Logger.Error("metrics are not served: the credential cannot be used", "credential", credentialMetrics, "error", err)
		token = make([]byte, 32)
		_, _ = rand.Read(token) // it never fails (crypto/rand)
	}
	return token
}

// ours reports whether the Host of a request that came to an address of this machine's own is a name of this machine. A page in a
// browser on this machine can have its own name resolve to a loopback address, and would read the reply as one of its own site.
func ours(r *http.Request) bool {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, tcp := at.(*net.TCPAddr); !tcp || !loopback(at) {
		return true // a browser has no Unix sockets; and an address that others can reach has names that nobody knows here
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	name, _ := os.Hostname()
	short, _, _ := strings.Cut(name, ".")
	for _, own := range []string{"localhost", name, short} {
		if own != "" && strings.EqualFold(host, own) {
			return true
		}
	}
	return false
}

func engineMetrics(engine rtaskv1connect.GatewayServiceClient) ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	reply, err := engine.Metrics(ctx, &rtaskv1.MetricsRequest{})
	if err != nil {
		return nil, fmt.Errorf("cannot ask the engine: %w", err)
	}
	dec := expfmt.NewDecoder(bytes.NewReader(reply.Families), expfmt.NewFormat(expfmt.TypeProtoDelim))
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
