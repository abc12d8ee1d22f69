//go:build !unix

package command

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func shell(line string) []string { return []string{"cmd", "/C", line} }

// program runs a program once for each reading.
type program struct{ argv []string }

func (p *program) read(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.WaitDelay = 500 * time.Millisecond
	var out, complaint bounded
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w: the program did not end, and was killed", sensors.ErrTimeout)
	case cmd.ProcessState == nil:
		return "", fmt.Errorf("%w: %w", sensors.ErrUnsupported, err)
	case !cmd.ProcessState.Success():
		return "", refuse(complaint.String()+" "+out.String(), fmt.Sprintf("the program failed with code %d", cmd.ProcessState.ExitCode()))
	}
	return out.String(), nil
}

func (*program) close() error { return nil }

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(text []byte) (int, error) {
	const most = 64 << 10
	_, _ = b.Buffer.Write(text[:min(len(text), max(0, most-b.Len()))])
	return len(text), nil
}
