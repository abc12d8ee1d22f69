package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// collector is an OTLP receiver in this process, on a port of its own. It keeps
// what it accepts.
type collector struct {
	protocol string // as OTEL_EXPORTER_OTLP_PROTOCOL has it
	endpoint string // as OTEL_EXPORTER_OTLP_ENDPOINT has it
	answer   func(delivery) answer
	listener *countingListener

	mu         sync.Mutex
	deliveries []delivery
	received   chan struct{} // a token for every delivery
}

// delivery is one request: the spans of it, or the metrics.
type delivery struct {
	signal  string // spans or metrics
	number  int    // of this signal, from 0
	token   string // the header x-token
	spans   *collectortrace.ExportTraceServiceRequest
	metrics *collectormetrics.ExportMetricsServiceRequest
}

// answer is what a collector says to a delivery; the zero answer is that all of
// it is accepted.
type answer struct {
	http     int        // HTTP status
	grpc     codes.Code // gRPC status
	message  string
	rejected int64 // spans or points that an accepted request lost
}

func accept(delivery) answer { return answer{} }

// always gives the same answer to everything.
func always(a answer) func(delivery) answer { return func(delivery) answer { return a } }

// newCollector starts a collector at an address, which may have port 0, and
// skips the test where that address cannot be had.
func newCollector(t *testing.T, protocol, address string, reply func(delivery) answer) *collector {
	t.Helper()
	c := &collector{
		protocol: protocol, answer: reply, listener: listen(t, address),
		received: make(chan struct{}, 1024),
	}
	c.endpoint = "http://" + c.listener.Addr().String()
	if protocol == protocolGRPC {
		server := grpc.NewServer()
		collectortrace.RegisterTraceServiceServer(server, grpcTraces{c: c})
		collectormetrics.RegisterMetricsServiceServer(server, grpcMetrics{c: c})
		go func() { _ = server.Serve(c.listener) }()
		t.Cleanup(server.Stop)
		return c
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.httpTraces)
	mux.HandleFunc("POST /v1/metrics", c.httpMetrics)
	server := &httptest.Server{Listener: c.listener, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(server.Close)
	return c
}

// keep records a delivery and returns the answer to it.
func (c *collector) keep(d delivery) answer {
	c.mu.Lock()
	for _, earlier := range c.deliveries {
		if earlier.signal == d.signal {
			d.number++
		}
	}
	c.deliveries = append(c.deliveries, d)
	c.mu.Unlock()
	select {
	case c.received <- struct{}{}:
	default: // far more than any test counts
	}
	return c.answer(d)
}

// of returns the deliveries of a signal in their order.
func (c *collector) of(signal string) []delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.deliveries), func(d delivery) bool { return d.signal != signal })
}

type grpcTraces struct {
	collectortrace.UnimplementedTraceServiceServer
	c *collector
}

func (g grpcTraces) Export(ctx context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	a := g.c.keep(delivery{signal: "spans", token: grpcToken(ctx), spans: r})
	return tracesResponse(a), status.Error(a.grpc, a.message)
}

type grpcMetrics struct {
	collectormetrics.UnimplementedMetricsServiceServer
	c *collector
}

func (g grpcMetrics) Export(ctx context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	a := g.c.keep(delivery{signal: "metrics", token: grpcToken(ctx), metrics: r})
	return metricsResponse(a), status.Error(a.grpc, a.message)
}

func grpcToken(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return fmt.Sprint(slices.Concat(md.Get("x-token")))
}

func (c *collector) httpTraces(w http.ResponseWriter, r *http.Request) {
	request := &collectortrace.ExportTraceServiceRequest{}
	if c.read(w, r, request) {
		a := c.keep(delivery{signal: "spans", token: fmt.Sprint(r.Header.Values("x-token")), spans: request})
		respond(w, a, tracesResponse(a))
	}
}

func (c *collector) httpMetrics(w http.ResponseWriter, r *http.Request) {
	request := &collectormetrics.ExportMetricsServiceRequest{}
	if c.read(w, r, request) {
		a := c.keep(delivery{signal: "metrics", token: fmt.Sprint(r.Header.Values("x-token")), metrics: request})
		respond(w, a, metricsResponse(a))
	}
}

// read parses a request, of which only binary protobuf is taken.
func (c *collector) read(w http.ResponseWriter, r *http.Request, into proto.Message) bool {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = proto.Unmarshal(body, into)
	}
	if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not OTLP in protobuf", http.StatusUnsupportedMediaType)
		return false
	}
	return true
}

func respond(w http.ResponseWriter, a answer, response proto.Message) {
	if a.http != 0 {
		http.Error(w, a.message, a.http)
		return
	}
	body, err := proto.Marshal(response)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(body)
}

func tracesResponse(a answer) *collectortrace.ExportTraceServiceResponse {
	r := &collectortrace.ExportTraceServiceResponse{}
	if a.rejected > 0 {
		r.PartialSuccess = &collectortrace.ExportTracePartialSuccess{RejectedSpans: a.rejected, ErrorMessage: a.message}
	}
	return r
}

func metricsResponse(a answer) *collectormetrics.ExportMetricsServiceResponse {
	r := &collectormetrics.ExportMetricsServiceResponse{}
	if a.rejected > 0 {
		r.PartialSuccess = &collectormetrics.ExportMetricsPartialSuccess{RejectedDataPoints: a.rejected, ErrorMessage: a.message}
	}
	return r
}

// countingListener counts the connections it accepts.
type countingListener struct {
	net.Listener
	count    atomic.Int64
	accepted chan struct{} // closed with the first
}

// listen starts a listener. An address with a port of its own may be taken by
// somebody else: the test is then skipped.
func listen(t *testing.T, address string) *countingListener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &countingListener{Listener: l, accepted: make(chan struct{})}
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil && l.count.Add(1) == 1 {
		close(l.accepted)
	}
	return conn, err
}

// silent accepts connections, and then says nothing until the test is over.
func silent(t *testing.T) *countingListener {
	t.Helper()
	l := listen(t, anyPort)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l
}

const (
	// anyPort lets the system choose a port.
	anyPort = "127.0.0.1:0"
	// refusing is where nobody listens: the port of a service that was given up
	// in the eighties, and that only root could take.
	refusing = "127.0.0.1:1"
)
