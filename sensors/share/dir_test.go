//go:build linux || darwin

package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wattspan/wattspan/sensors"
)

func environment(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := values[name]; return v, ok }
}

func TestDir(t *testing.T) {
	root := t.TempDir()
	at := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
	for _, d := range []string{"run", "tmp"} {
		if err := os.Mkdir(at(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(at("shared"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at("shared"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("tmp"), at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mine := fmt.Sprintf("wattspan-%d", os.Getuid())
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
		err  error
	}{
		{"named", map[string]string{EnvShare: at("named", "deep"), "XDG_RUNTIME_DIR": at("run")}, at("named", "deep"), nil},
		{"off", map[string]string{EnvShare: "off"}, "", ErrOff},
		{"relative", map[string]string{EnvShare: "here"}, "", errAny},
		{"runtime directory", map[string]string{"XDG_RUNTIME_DIR": at("run"), "TMPDIR": at("tmp")}, at("run", "wattspan"), nil},
		{"temporary directory", map[string]string{"TMPDIR": at("tmp")}, at("tmp", mine), nil},
		{"a runtime directory that this machine lacks", map[string]string{"XDG_RUNTIME_DIR": at("no"), "TMPDIR": at("tmp")}, at("tmp", mine), nil},
		{"a runtime directory for all", map[string]string{"XDG_RUNTIME_DIR": at("shared"), "TMPDIR": at("tmp")}, at("tmp", mine), nil},
		{"below one for all", map[string]string{EnvShare: at("shared", "x")}, at("shared", "x"), nil},
		{"others can write", map[string]string{EnvShare: at("shared")}, "", sensors.ErrPermission},
		{"a link", map[string]string{EnvShare: at("link")}, "", errAny},
		{"a file", map[string]string{EnvShare: at("file")}, "", errAny},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := Dir(environment(c.env))
			switch {
			case c.err == errAny && err != nil:
			case !errors.Is(err, c.err):
				t.Fatalf("error %v, want %v", err, c.err)
			case c.err != nil:
				if !strings.Contains(err.Error(), EnvShare) && !strings.Contains(err.Error(), "chmod") {
					t.Errorf("%q does not say what to do", err)
				}
			case dir != c.want:
				t.Errorf("Dir() = %s, want %s", dir, c.want)
			default:
				info, err := os.Lstat(dir)
				if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
					t.Errorf("%s: %v, %v, want a directory for its user alone", dir, info.Mode(), err)
				}
			}
		})
	}
}

// errAny stands for any error in a table.
var errAny = errors.New("any")

func TestADirectoryOfSomebodyElseIsNotTrusted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make one")
	}
	dir := filepath.Join(t.TempDir(), "theirs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(environment(map[string]string{EnvShare: dir})); !errors.Is(err, sensors.ErrPermission) {
		t.Errorf("Dir: %v", err)
	}
	l := newLab(t)
	l.dir = dir
	if _, err := l.tryJoin("a", l.open(cpu)); !errors.Is(err, sensors.ErrPermission) {
		t.Errorf("Join: %v", err)
	}
}

// Whatever is in the place of the page, the set of who comes stays open.
func TestAPageThatCannotBeTrustedIsNotUsed(t *testing.T) {
	id, err := machine()
	if err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"a link": func(path string) error {
			target := filepath.Join(filepath.Dir(path), "target")
			if err := os.WriteFile(target, nil, 0o600); err != nil {
				return err
			}
			return os.Symlink(target, path)
		},
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"one that others can write": func(path string) error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o622)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			if err := put(filepath.Join(l.dir, fmt.Sprintf("%s%d-%x", pagePrefix, version, id[:8]))); err != nil {
				t.Fatal(err)
			}
			s := l.sensor(cpu)
			_, err := Join(context.Background(), l.dir, sensors.NewSet(s), nil, Who{Interval: interval})
			if err == nil || name == "a pipe" && !errors.Is(err, sensors.ErrPermission) {
				t.Errorf("Join: %v", err)
			}
			if s.Closed() {
				t.Error("the set is closed")
			}
		})
	}
}

func TestADirectoryThatIsNotThere(t *testing.T) {
	l := newLab(t)
	l.dir = filepath.Join(l.dir, "no")
	if _, err := l.tryJoin("a", l.open(cpu)); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), EnvShare) {
		t.Errorf("Join: %v", err)
	}
}

func TestThePageIsForItsUserAlone(t *testing.T) {
	l := newLab(t)
	l.join("a", l.open(cpu))
	info, err := os.Stat(l.pagePath())
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != pageSize {
		t.Errorf("%v, %v, %d bytes", info.Mode(), err, info.Size())
	}
}

func TestPagesOfBootsLongAgoAreRemoved(t *testing.T) {
	l := newLab(t)
	for name, age := range map[string]time.Duration{
		pagePrefix + "1-old": longDead + time.Hour, pagePrefix + "1-young": time.Hour, "notes": 10 * longDead,
	} {
		path := filepath.Join(l.dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now(), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	l.join("a", l.open(cpu))
	for name, want := range map[string]bool{pagePrefix + "1-old": false, pagePrefix + "1-young": true, "notes": true} {
		if _, err := os.Stat(filepath.Join(l.dir, name)); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", name, err == nil, want)
		}
	}
}
