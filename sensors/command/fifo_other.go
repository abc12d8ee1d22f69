//go:build !unix

package command

import (
	"context"
	"errors"
	"time"
)

// fifo is for systems that have FIFOs among their files.
type fifo struct{}

func openFIFO(string, func() time.Time) (*fifo, error) { return nil, errors.ErrUnsupported }

func (*fifo) line(context.Context) (string, error) { return "", errors.ErrUnsupported }

func (*fifo) Close() error { return nil }
