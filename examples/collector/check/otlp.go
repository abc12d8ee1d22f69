package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// What the collector's file exporter writes: OTLP in its JSON encoding, one
// request a line. Not read with protojson, which takes the hexadecimal IDs of
// OTLP for base64 and accepts them.

type traces struct {
	ResourceSpans []struct {
		Resource   resource `json:"resource"`
		SchemaURL  string   `json:"schemaUrl"`
		ScopeSpans []struct {
			Scope     scope  `json:"scope"`
			SchemaURL string `json:"schemaUrl"`
			Spans     []span `json:"spans"`
		} `json:"scopeSpans"`
	} `json:"resourceSpans"`
}

type metrics struct {
	ResourceMetrics []struct {
		Resource     resource `json:"resource"`
		SchemaURL    string   `json:"schemaUrl"`
		ScopeMetrics []struct {
			Scope     scope    `json:"scope"`
			SchemaURL string   `json:"schemaUrl"`
			Metrics   []metric `json:"metrics"`
		} `json:"scopeMetrics"`
	} `json:"resourceMetrics"`
}

type resource struct {
	Attributes attributes `json:"attributes"`
	Dropped    int        `json:"droppedAttributesCount"`
}

type scope struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type span struct {
	TraceID           string            `json:"traceId"`
	SpanID            string            `json:"spanId"`
	ParentSpanID      string            `json:"parentSpanId"`
	Name              string            `json:"name"`
	Kind              int               `json:"kind"`
	Start             nanoseconds       `json:"startTimeUnixNano"`
	End               nanoseconds       `json:"endTimeUnixNano"`
	Attributes        attributes        `json:"attributes"`
	Events            []json.RawMessage `json:"events"`
	Links             []json.RawMessage `json:"links"`
	DroppedAttributes int               `json:"droppedAttributesCount"`
	DroppedEvents     int               `json:"droppedEventsCount"`
	DroppedLinks      int               `json:"droppedLinksCount"`
	Status            struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"status"`
}

type metric struct {
	Name      string `json:"name"`
	Unit      string `json:"unit"`
	Gauge     *data  `json:"gauge"`
	Sum       *data  `json:"sum"`
	Histogram *data  `json:"histogram"`
}

// data is that of any kind of metric.
type data struct {
	Temporality int     `json:"aggregationTemporality"`
	Monotonic   bool    `json:"isMonotonic"`
	Points      []point `json:"dataPoints"`
}

type point struct {
	Attributes attributes  `json:"attributes"`
	Start      nanoseconds `json:"startTimeUnixNano"`
	Time       nanoseconds `json:"timeUnixNano"`
	Double     *float64    `json:"asDouble"`
	Int        *integer    `json:"asInt"`
	Count      integer     `json:"count"` // of a histogram
	Sum        float64     `json:"sum"`
}

// value is the number of a point that is no histogram's.
func (p point) value() (float64, bool) {
	switch {
	case p.Double != nil && p.Int == nil:
		return *p.Double, true
	case p.Int != nil && p.Double == nil:
		return float64(*p.Int), true
	}
	return 0, false
}

// The values of OTLP's enumerations that are used.
const (
	kindInternal          = 1
	statusUnset           = 0
	statusError           = 2
	temporalityCumulative = 2
)

// kind is the kind of a metric, and its data; nil where it has none.
func (m metric) kind() (string, *data) {
	switch {
	case m.Sum != nil && m.Sum.Temporality == temporalityCumulative && m.Sum.Monotonic:
		return "cumulative monotonic sum", m.Sum
	case m.Sum != nil:
		return fmt.Sprintf("sum of temporality %d, monotonic %t", m.Sum.Temporality, m.Sum.Monotonic), m.Sum
	case m.Gauge != nil:
		return "gauge", m.Gauge
	case m.Histogram != nil && m.Histogram.Temporality == temporalityCumulative:
		return "cumulative histogram", m.Histogram
	case m.Histogram != nil:
		return fmt.Sprintf("histogram of temporality %d", m.Histogram.Temporality), m.Histogram
	}
	return "of an unknown kind", nil
}

// integer is a 64-bit integer, which JSON has as a string.
type integer int64

// UnmarshalJSON implements json.Unmarshaler.
func (i *integer) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(string(bytes.Trim(text, `"`)), 10, 64)
	*i = integer(v)
	return err
}

// nanoseconds is a time since 1970.
type nanoseconds = integer

// attributes are by key. A value is a string, a bool, an int64 or a float64, and
// what else there is as its JSON.
type attributes map[string]any

// UnmarshalJSON implements json.Unmarshaler.
func (a *attributes) UnmarshalJSON(text []byte) error {
	var list []struct {
		Key   string                     `json:"key"`
		Value map[string]json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	*a = attributes{}
	for _, kv := range list {
		if _, twice := (*a)[kv.Key]; twice {
			return fmt.Errorf("two attributes %q", kv.Key)
		}
		if len(kv.Value) != 1 {
			return fmt.Errorf("attribute %q has %d values", kv.Key, len(kv.Value))
		}
		for kind, raw := range kv.Value {
			v, err := decode(kind, raw)
			if err != nil {
				return fmt.Errorf("attribute %q: %w", kv.Key, err)
			}
			(*a)[kv.Key] = v
		}
	}
	return nil
}

func decode(kind string, raw json.RawMessage) (any, error) {
	switch kind {
	case "stringValue":
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case "boolValue":
		var b bool
		err := json.Unmarshal(raw, &b)
		return b, err
	case "intValue":
		var i integer
		err := json.Unmarshal(raw, &i)
		return int64(i), err
	case "doubleValue":
		var f float64
		err := json.Unmarshal(raw, &f)
		return f, err
	}
	return string(raw), nil
}

// text returns an attribute that is a string, else "".
func (a attributes) text(key string) string {
	s, _ := a[key].(string)
	return s
}

// String returns the attributes in the order of their keys.
func (a attributes) String() string {
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(a)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s=%v", key, a[key])
	}
	return "{" + b.String() + "}"
}

// maxLine bounds a request: the collector's batches are far below.
const maxLine = 64 << 20

// readLines reads one T from each line.
func readLines[T any](r io.Reader) ([]T, error) {
	var all []T
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, one)
	}
	return all, lines.Err()
}
