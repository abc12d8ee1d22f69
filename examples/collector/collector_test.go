// Package collector_test runs run.sh, which needs a collector that takes minutes
// to build, and therefore only where it is asked to:
//
//	WATTSPAN_COLLECTOR_TEST=1 go test -v -timeout 30m ./examples/collector
package collector_test

import (
	"os"
	"os/exec"
	"testing"
)

func TestCollector(t *testing.T) {
	if os.Getenv("WATTSPAN_COLLECTOR_TEST") != "1" {
		t.Skip("a real collector is tested with WATTSPAN_COLLECTOR_TEST=1: its first build takes about 5 minutes")
	}
	script := exec.Command("bash", "run.sh", "--outage")
	script.Stdout, script.Stderr = os.Stdout, os.Stderr
	if err := script.Run(); err != nil {
		t.Error(err)
	}
}
