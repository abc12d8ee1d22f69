package share

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

// EnvShare is the environment variable that names the directory in which the
// trackers of a machine meet; "off" keeps them apart.
const EnvShare = "WATTSPAN_SHARE"

// ErrOff is returned by [Dir] where the user wants nothing to be shared.
var ErrOff = errors.New("sharing is off (" + EnvShare + "=off)")

// Dir returns the directory in which the trackers of this user meet, and makes it
// if it is not there: the one that WATTSPAN_SHARE names, else
// $XDG_RUNTIME_DIR/wattspan, else wattspan-UID in the directory of temporary files.
// lookup is os.LookupEnv. The directory belongs to this user and no one else can
// write to it, so that nobody can feed us numbers: anything else is an error, as is
// [ErrOff].
func Dir(lookup func(string) (string, bool)) (string, error) {
	if !supported {
		return "", errUnsupported
	}
	if dir, _ := lookup(EnvShare); dir == "off" {
		return "", ErrOff
	} else if dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("share: %s=%q: name an absolute path, or off", EnvShare, dir)
		}
		return dir, makeDir(dir)
	}
	// Batch systems carry the variable to machines that lack the directory.
	if runtime, _ := lookup("XDG_RUNTIME_DIR"); filepath.IsAbs(runtime) && verifyDir(runtime) == nil {
		dir := filepath.Join(runtime, "wattspan")
		if err := makeDir(dir); err == nil {
			return dir, nil
		}
	}
	temporary, _ := lookup("TMPDIR")
	if temporary == "" {
		temporary = os.TempDir()
	}
	dir := filepath.Join(temporary, "wattspan-"+strconv.Itoa(os.Getuid()))
	return dir, makeDir(dir)
}

// makeDir makes a directory for this user alone, unless it is there, and verifies
// it.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("share: %w (%w): set %s to a directory that this user can write to, or to off",
			err, sensors.ErrPermission, EnvShare)
	}
	return verifyDir(dir)
}

// longDead is the age from which a page of another boot is removed. The owner of a
// page writes it all the time.
const longDead = 7 * 24 * time.Hour

// tidy removes the pages of boots that were long ago.
func tidy(dir string, now time.Time) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && strings.HasPrefix(e.Name(), pagePrefix) && now.Sub(info.ModTime()) > longDead {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

const pagePrefix = "page-"
