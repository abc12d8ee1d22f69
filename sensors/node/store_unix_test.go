//go:build unix

package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A pipe in the place of the profile, which nobody writes to, does not hold up a
// run.
func TestPipeForAProfile(t *testing.T) {
	s := home(t)
	path, err := s.path()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), syscall.Mkfifo(path, 0o644)); err != nil {
		t.Skip(err)
	}
	read := make(chan error, 1)
	go func() {
		_, _, _, err := s.load()
		read <- err
	}()
	select {
	case err := <-read:
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the pipe")
	}
}
