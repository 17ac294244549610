package app

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/engine"
	"github.com/quern-data/quern/go-api/internal/sharedcache"
)

// metrics are all that the edge counts, under the names declared here and nowhere else.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	calls    *prometheus.CounterVec
	callTime *prometheus.HistogramVec
}

// The levels of the cache, as label values.
var (
	levelEdge  = prometheus.Labels{"level": "edge"}
	levelRedis = prometheus.Labels{"level": "redis"}
)

// durations are the buckets of times, 0.1 ms to 26 s.
var durations = prometheus.ExponentialBuckets(0.0001, 4, 10)

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quern_http_requests_total", Help: "HTTP requests answered, by route and status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quern_http_request_duration_seconds", Help: "Time from a request's header to its answer's last byte.",
			Buckets: durations,
		}, []string{"route"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quern_grpc_requests_total", Help: "gRPC calls answered, by method and status code.",
		}, []string{"method", "code"}),
		callTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quern_grpc_request_duration_seconds", Help: "Time from a call's header to its status.", Buckets: durations,
		}, []string{"method"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "quern_build_info", Help: "1, with the version that runs and the Go version that it was built with.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(build, m.requests, m.seconds, m.calls, m.callTime, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ServeHTTP answers in the Prometheus text format.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: metricsLimit})
}

const (
	// metricsLimit bounds one gathering, and engineMetricsLimit the engine's part of it.
	metricsLimit       = 5 * time.Second
	engineMetricsLimit = time.Second
)

// Observe implements rest.Observer.
func (m *metrics) Observe(route string, code int, took time.Duration) {
	m.requests.WithLabelValues(route, statusText(code)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// ObserveCall implements rpc.Observer.
func (m *metrics) ObserveCall(method, code string, took time.Duration) {
	m.calls.WithLabelValues(method, code).Inc()
	m.callTime.WithLabelValues(method).Observe(took.Seconds())
}

// statusText spares the usual codes an allocation.
func statusText(code int) string {
	switch code {
	case http.StatusOK:
		return "200"
	case http.StatusNotModified:
		return "304"
	default:
		return strconv.Itoa(code)
	}
}

func (m *metrics) count(name, help string, labels prometheus.Labels, value func() int64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(value()) },
	))
}

func (m *metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// watchCache registers what the front cache counts.
func (m *metrics) watchCache(answers *cache.Cache, limit int64) {
	c := answers.Counters()
	m.count("quern_cache_hits_total", "Requests answered from a level of the cache.", levelEdge, c.Hits.Load)
	m.count("quern_cache_hits_total", "Requests answered from a level of the cache.", levelRedis, c.SharedHits.Load)
	m.count("quern_cache_misses_total", "Requests that a level of the cache had nothing for.", levelEdge, c.Misses.Load)
	m.count("quern_cache_misses_total", "Requests that a level of the cache had nothing for.", levelRedis, c.SharedMisses.Load)
	m.count("quern_cache_stale_total", "Requests whose stored answer no longer held.", nil, c.Stale.Load)
	m.count("quern_cache_collapsed_total", "Requests that shared another one's execution.", nil, c.Collapsed.Load)
	m.count("quern_cache_bypassed_total", "Requests that neither read nor stored.", nil, c.Bypassed.Load)
	m.count("quern_cache_overdue_total", "Requests answered from memory while nobody could vouch for it (stale_if_error).", nil, c.Overdue.Load)
	m.count("quern_cache_revalidations_total", "Times the sources were asked whether a stored answer holds.", nil, c.Revalidations.Load)
	const refused = "quern_cache_refused_total"
	m.count(refused, "Answers that were not stored, by reason.", prometheus.Labels{"reason": "volatile"}, c.Volatile.Load)
	m.count(refused, "Answers that were not stored, by reason.", prometheus.Labels{"reason": "too_large"}, c.TooLarge.Load)
	m.count("quern_cache_evictions_total", "Answers that made room for others.", nil, c.Evictions.Load)
	m.count("quern_cache_encoded_total", "Compressed variants that were made.", nil, c.Encoded.Load)
	m.gauge("quern_cache_entries", "Answers in memory.", func() float64 {
		entries, _ := answers.Size()
		return float64(entries)
	})
	m.gauge("quern_cache_bytes", "Memory that the answers take, all overhead counted.", func() float64 {
		_, bytes := answers.Size()
		return float64(bytes)
	})
	m.gauge("quern_cache_max_bytes", "Memory that the answers may take.", func() float64 { return float64(limit) })
}

// watchEngine registers the state of the engine's connection and watch.
func (m *metrics) watchEngine(client *engine.Client) {
	flag := func(set bool) float64 {
		if set {
			return 1
		}
		return 0
	}
	m.registry.MustRegister(engineMetrics{client})
	m.gauge("quern_engine_serving", "1 while the engine can be reached and serves.", func() float64 { return flag(client.Serving()) })
	m.count("quern_engines_ejected_total", "Times that one of several engines was left out because it failed or was silent.", nil, engine.Ejections)
	m.gauge("quern_watch_live", "1 while the engine's watch vouches for what is in memory.", func() float64 {
		_, live := client.Picture()
		return flag(live)
	})
	m.gauge("quern_watch_age_seconds", "Time since the watch was last heard of.", func() float64 { return client.Silence().Seconds() })
}

// watchShared registers what the shared level counts.
func (m *metrics) watchShared(answers *cache.Cache, shared *sharedcache.Redis) {
	m.count("quern_cache_shared_failures_total", "Calls of the shared level that failed or were not made.", nil, shared.Failures)
	m.count("quern_cache_shared_dropped_total", "Answers not stored there because too many were on their way.", nil, shared.Dropped)
	m.count("quern_cache_shared_damaged_total", "Values there that were damaged and not used.", nil, answers.Counters().SharedDamaged.Load)
	m.gauge("quern_cache_shared_up", "1 while the shared level is asked.", func() float64 {
		if shared.Up() {
			return 1
		}
		return 0
	})
}

// engineMetrics shows the engines' own metrics beside the edge's. Of engines that can't be reached there are none.
type engineMetrics struct{ client *engine.Client }

// Describe implements prometheus.Collector. It tells of no metric: which there are is the engine's business.
func (engineMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (e engineMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), engineMetricsLimit)
	defer cancel()
	engines, err := e.client.Metrics(ctx)
	if err != nil {
		return
	}
	for address, metrics := range engines {
		for _, metric := range metrics {
			if shown := constMetric(metric, address); shown != nil {
				out <- shown
			}
		}
	}
}

// constMetric returns a metric of an engine, with its address as a label where it has one; nil where it is none.
func constMetric(metric *enginev1.Metric, address string) prometheus.Metric {
	kind := prometheus.GaugeValue
	if metric.GetKind() == enginev1.MetricKind_METRIC_KIND_COUNTER {
		kind = prometheus.CounterValue
	}
	var names, values []string
	if address != "" {
		names, values = append(names, "engine"), append(values, address)
	}
	for _, label := range metric.GetLabels() {
		names, values = append(names, label.GetName()), append(values, label.GetValue())
	}
	desc := prometheus.NewDesc(metric.GetName(), metric.GetHelp(), names, nil)
	shown, err := prometheus.NewConstMetric(desc, kind, metric.GetValue(), values...)
	if err != nil {
		return nil
	}
	return shown
}
