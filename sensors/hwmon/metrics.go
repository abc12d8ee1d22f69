package hwmon

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/wattspan/wattspan/sensors"
)

// metricsSize is what is read of gpu_metrics: up to the end of the last
// accumulator in accumulators.
const metricsSize = 128

// accumulators are the offsets of energy_accumulator in gpu_metrics, by the
// content revision of format 1. They follow from the structures gpu_metrics_v1_4 to
// gpu_metrics_v1_8 in the kernel's kgd_pp_interface.h, which state its unit, 2⁻¹⁶ J.
// All before it are 16-bit fields: a header of 4 bytes, three temperatures, the
// power and two activities make 16 bytes; in 1.4 four of VCN follow, in 1.5 another
// 32 of JPEG, and in 1.7 and 1.8 the memory's bandwidth, of 64 bits.
//
// Other revisions are not read. For 1.0 to 1.3 the kernel states no unit, and
// drivers of some GPUs put 2³²-1 there; 1.9 is a list of fields; 2 and 3 are
// those of processors with graphics.
var accumulators = map[byte]int{4: 24, 5: 88, 6: 16, 7: 24, 8: 24}

var (
	errShortMetrics   = fmt.Errorf("gpu_metrics is shorter than its revision says: %w", sensors.ErrTransient)
	errOtherMetrics   = fmt.Errorf("gpu_metrics is of a revision without an energy of known unit: %w", sensors.ErrUnsupported)
	errWithoutMetrics = fmt.Errorf("the energy in gpu_metrics is not filled in: %w", sensors.ErrUnsupported)
)

// parseMetrics returns the energy accumulator in the head of a gpu_metrics, in µJ.
func parseMetrics(table []byte) (uint64, error) {
	const header = 4
	if len(table) < header {
		return 0, errShortMetrics
	}
	size, format, content := binary.LittleEndian.Uint16(table), table[2], table[3]
	at, known := accumulators[content]
	if format != 1 || !known {
		return 0, errOtherMetrics
	}
	if int(size) < at+8 || len(table) < at+8 {
		return 0, errShortMetrics
	}
	raw := binary.LittleEndian.Uint64(table[at:])
	if raw == 0 || raw == 1<<32-1 || raw == 1<<64-1 {
		return 0, errWithoutMetrics
	}
	// µJ are raw · 10⁶ / 2¹⁶, which is raw · 5⁶ / 2¹⁰ and has more than 64 bits on the
	// way. The result has them beyond 2⁶⁴ µJ, which no GPU will ever have drawn.
	high, low := bits.Mul64(raw, 15625)
	return high<<54 | low>>10, nil
}
