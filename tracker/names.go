package tracker

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// All names that Wattspan puts on spans and metrics are in this file. hw.* are
// OpenTelemetry's own and used as they are; everything else is under the prefix
// wattspan., as OpenTelemetry asks of those who are not OpenTelemetry. Units of
// span attributes are in the key, because trace viewers show bare numbers.
const (
	// ScopeName is the instrumentation scope of all spans and metrics.
	ScopeName = "github.com/wattspan/wattspan/tracker"
	// Version is the version of this module.
	Version = "0.1.0"
	// SchemaURL is the version of the semantic conventions that hw.* follow.
	SchemaURL = semconv.SchemaURL
)

// Metrics.
const (
	metricHWEnergy         = "hw.energy"
	metricHWPower          = "hw.power"
	metricHostEnergy       = "hw.host.energy" // of a meter of the whole machine only
	metricHostPower        = "hw.host.power"
	metricGPUUtilization   = "hw.gpu.utilization"
	metricEnergy           = "wattspan.energy"
	metricEmissions        = "wattspan.emissions"
	metricGridIntensity    = "wattspan.grid.intensity"
	metricPUE              = "wattspan.pue"
	metricSamplerTicks     = "wattspan.sampler.ticks"
	metricSamplerMissed    = "wattspan.sampler.missed"
	metricSamplerErrors    = "wattspan.sampler.errors"
	metricSamplerTickTimes = "wattspan.sampler.tick.duration"
)

// Units. No annotation in braces on energy or mass: Prometheus exporters drop
// the unit of an annotated metric.
const (
	unitJoule      = "J"
	unitWatt       = "W"
	unitGram       = "g"
	unitRatio      = "1"
	unitSecond     = "s"
	unitTick       = "{tick}"
	unitError      = "{error}"
	unitGramPerKWh = "g/kW.h"
)

// Attributes of metrics.
const (
	keyHWID           = attribute.Key("hw.id")
	keyHWType         = attribute.Key("hw.type")
	keyHWName         = attribute.Key("hw.name")
	keyHWParent       = attribute.Key("hw.parent")
	keyHWVendor       = attribute.Key("hw.vendor")
	keyComponent      = attribute.Key("wattspan.component")
	keyMethod         = attribute.Key("wattspan.method")
	keyEmissionsScope = attribute.Key("wattspan.emissions.scope")
	keyPUESource      = attribute.Key("wattspan.pue.source")
)

// Values of wattspan.component beyond the components of the hardware.
const (
	componentUnseen   = "unseen"   // what the node draws beyond its components
	componentOverhead = "overhead" // what the PUE adds
)

// Attributes of spans, and of metrics where noted there.
const (
	keyRunID            = attribute.Key("wattspan.run.id")
	keyScope            = attribute.Key("wattspan.scope")
	keyEnergyDevice     = attribute.Key("wattspan.energy.device_j")
	keyEnergyNode       = attribute.Key("wattspan.energy.node_j")
	keyEnergyFacility   = attribute.Key("wattspan.energy.facility_j")
	keyEnergyGPU        = attribute.Key("wattspan.energy.gpu_j")
	keyEnergyCPU        = attribute.Key("wattspan.energy.cpu_j")
	keyEnergyMemory     = attribute.Key("wattspan.energy.memory_j")
	keyEnergyUnseen     = attribute.Key("wattspan.energy.unseen_j")
	keyEnergyOverhead   = attribute.Key("wattspan.energy.overhead_j")
	keyEnergyLow        = attribute.Key("wattspan.energy.low_j")
	keyEnergyHigh       = attribute.Key("wattspan.energy.high_j")
	keyEnergyMethod     = attribute.Key("wattspan.energy.method")
	keyEnergyMethodGPU  = attribute.Key("wattspan.energy.method.gpu")
	keyEnergyMethodCPU  = attribute.Key("wattspan.energy.method.cpu")
	keyEnergyMethodMem  = attribute.Key("wattspan.energy.method.memory")
	keyEnergyMethodNode = attribute.Key("wattspan.energy.method.node")
	keyEnergyQuality    = attribute.Key("wattspan.energy.quality")
	keyEnergyCoverage   = attribute.Key("wattspan.energy.coverage")
	keyEnergyPartial    = attribute.Key("wattspan.energy.partial")
	keyAttribution      = attribute.Key("wattspan.attribution")
	keyEmissionsOp      = attribute.Key("wattspan.emissions.operational_g")
	keyGridIntensity    = attribute.Key("wattspan.grid.intensity_g_per_kwh")
	keyGridZone         = attribute.Key("wattspan.grid.zone")
	keyGridSource       = attribute.Key("wattspan.grid.source")
	keyGridKind         = attribute.Key("wattspan.grid.kind")
	keyPUE              = attribute.Key("wattspan.pue")
)
