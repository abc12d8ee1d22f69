package node

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrDamaged is returned for a stored profile that cannot be read: the error says
// which file it is, and what to do. A run goes on without it.
var ErrDamaged = errors.New("the stored node profile cannot be used")

// schema names the contents of the file.
const schema = "wattspan.node/v1"

// stored is the file.
type stored struct {
	Schema  string  `json:"schema"`
	Profile Profile `json:"profile"`
}

// shelf is where profiles are kept. Homes are shared between machines, so that
// the user's file has the machine in its name; the system's is the machine's own.
type shelf struct {
	config   func() (string, error) // the user's folder
	ids      []string               // files that hold the machine's identity
	hostname func() (string, error)
	system   string // the file for all users
}

var own = shelf{
	config:   os.UserConfigDir,
	ids:      []string{"/etc/machine-id", "/var/lib/dbus/machine-id"},
	hostname: os.Hostname,
	system:   "/etc/wattspan/node.json",
}

// Store keeps a profile for this user on this machine, in place of the one
// before, and returns the file. It is written completely or not at all.
func Store(p Profile) (path string, err error) { return own.store(p) }

// Load returns the profile that is stored for this machine, the user's before the
// system's, /etc/wattspan/node.json, and the file it is from. It is false where
// there is none. An error wraps [ErrDamaged] and names the file.
func Load() (p Profile, path string, ok bool, err error) { return own.load() }

// Forget removes the user's profile for this machine. It returns the file, and
// whether there was one. The system's is left.
func Forget() (path string, removed bool, err error) { return own.forget() }

func (s shelf) store(p Profile) (string, error) {
	if err := p.Validate(); err != nil {
		return "", fmt.Errorf("node profile: %w", err)
	}
	path, err := s.path()
	if err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(stored{Schema: schema, Profile: p}, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, replace(path, append(data, '\n'))
}

// replace writes a file that is whole after a loss of power, too.
func replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".node-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	// The name is durable once its folder is; not every system can sync one.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

func (s shelf) load() (Profile, string, bool, error) {
	// Without a home there is only the system's.
	if path, err := s.path(); err == nil {
		p, err := read(path)
		if err == nil {
			return p, path, true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Profile{}, path, false, fmt.Errorf("%w: %w; wattspan calibrate --forget removes it", ErrDamaged, err)
		}
	}
	p, err := read(s.system)
	switch {
	case err == nil:
		return p, s.system, true, nil
	case errors.Is(err, fs.ErrNotExist):
		return Profile{}, "", false, nil
	}
	return Profile{}, s.system, false, fmt.Errorf("%w: %w; mend or remove the file", ErrDamaged, err)
}

func (s shelf) forget() (string, bool, error) {
	path, err := s.path()
	if err != nil {
		return "", false, err
	}
	switch err := os.Remove(path); {
	case err == nil:
		return path, true, nil
	case errors.Is(err, fs.ErrNotExist):
		return path, false, nil
	default:
		return path, false, err
	}
}

// read reads a file. What is no regular file is not opened: a pipe would hold up
// the run.
func read(path string) (Profile, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		// A home that is another user's, or none at all, holds no profile.
		return Profile{}, fmt.Errorf("%w (%w)", fs.ErrNotExist, err)
	}
	if err != nil {
		return Profile{}, err
	}
	if !info.Mode().IsRegular() {
		return Profile{}, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return Profile{}, err
	}
	defer f.Close()
	const longest = 1 << 16
	data, err := io.ReadAll(io.LimitReader(f, longest+1))
	if err != nil {
		return Profile{}, err
	}
	if len(data) > longest {
		return Profile{}, fmt.Errorf("%s is longer than a profile", path)
	}
	p, err := parse(data)
	if err != nil {
		return Profile{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// parse reads what store wrote. Fields that a later version added are ignored.
func parse(data []byte) (Profile, error) {
	var file stored
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&file); err != nil {
		return Profile{}, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Profile{}, errors.New("there is more after the profile")
	}
	if file.Schema != schema {
		return Profile{}, fmt.Errorf("its schema is %.40q and not %q: it was written by another version", file.Schema, schema)
	}
	return file.Profile, file.Profile.Validate()
}

// path is the user's file for this machine.
func (s shelf) path() (string, error) {
	dir, err := s.config()
	if err != nil {
		return "", fmt.Errorf("there is no folder for a node profile: %w", err)
	}
	key, err := s.key()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "wattspan", "node-"+key+".json"), nil
}

// key tells machines apart. It is a hash, as machine-id(5) asks for: the identity
// itself is confidential.
func (s shelf) key() (string, error) {
	for _, file := range s.ids {
		text, err := os.ReadFile(file)
		id := strings.TrimSpace(string(text))
		// It is "uninitialized" on a machine that boots for the first time.
		if raw, malformed := hex.DecodeString(id); err == nil && malformed == nil && len(raw) == 16 {
			return hash("machine-id " + strings.ToLower(id)), nil
		}
	}
	name, err := s.hostname()
	if err != nil || name == "" {
		return "", fmt.Errorf("the machine has neither an identity in %s nor a name, and a profile cannot be kept for it", s.ids[0])
	}
	return hash("hostname " + name), nil
}

func hash(id string) string {
	mac := hmac.New(sha256.New, []byte("wattspan node profile"))
	_, _ = mac.Write([]byte(id))
	return hex.EncodeToString(mac.Sum(nil))[:16]
}
