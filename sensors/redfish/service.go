package redfish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/wattspan/wattspan/sensors"
)

const (
	// mostBody is more than a resource has, in bytes.
	mostBody = 1 << 20
	// firstPause and lastPause are between logins that are refused: accounts get
	// locked after a few.
	firstPause = 30 * time.Second
	lastPause  = 10 * time.Minute
	// goodbye is how long the end of a session may take.
	goodbye = 2 * time.Second
)

// service is a Redfish service with a login. It is for one goroutine at a time.
type service struct {
	config Config
	target target
	now    func() time.Time
	http   *http.Client

	client  *gofish.APIClient // nil without a login
	session string            // the path of the session; empty for basic authentication
	token   string

	refused error // why the last login failed
	retryAt time.Time
	retryIn time.Duration
}

func newService(c Config, t target, now func() time.Time) (*service, error) {
	s := &service{config: c, target: t, now: now}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redfish: the CA of the BMC: %w: %w", sensors.ErrUnsupported, err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redfish: the CA of the BMC: %s holds no certificate in PEM: %w", c.CAFile, sensors.ErrUnsupported)
		}
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig: settings, TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout,
		MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	s.http = &http.Client{
		Transport: bounded{transport}, Timeout: timeout,
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			// The token of the session goes wherever the request goes.
			if to.URL.Host != via[0].URL.Host || to.URL.Scheme != via[0].URL.Scheme || len(via) > 5 {
				return errors.New("it redirects to another host")
			}
			return nil
		},
	}
	return s, nil
}

// bounded cuts the bodies of responses.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, mostBody), resp.Body}
	}
	return resp, err
}

// get reads a resource into v. A session that has ended is opened anew, once.
func (s *service) get(ctx context.Context, path string, v any) error {
	if path == "" || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("redfish: %w: it does not link to a resource", sensors.ErrUnsupported)
	}
	fresh := s.client == nil
	if fresh {
		if err := s.login(ctx); err != nil {
			return err
		}
	}
	err := s.fetch(ctx, path, v)
	if status(err) == http.StatusUnauthorized && !fresh {
		s.end()
		if err := s.login(ctx); err != nil {
			return err
		}
		err = s.fetch(ctx, path, v)
	}
	if status(err) == http.StatusUnauthorized {
		// The login was taken and is worth nothing: it is not tried at every poll.
		s.end()
		return s.refuse(s.fault(err))
	}
	if err == nil {
		s.retryIn = 0
	}
	return s.fault(err)
}

func (s *service) fetch(ctx context.Context, path string, v any) error {
	resp, err := s.client.WithContext(ctx).Get(path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %s is not what Redfish has there", sensors.ErrTransient, path)
	}
	return nil
}

// login opens a session, or prepares basic authentication where there are none.
func (s *service) login(ctx context.Context) error {
	if s.now().Before(s.retryAt) {
		return s.refused
	}
	settings := gofish.ClientConfig{
		Endpoint: s.target.endpoint, HTTPClient: s.http, ReuseConnections: true, NoModifyTransport: true,
	}
	basic := settings
	basic.Username, basic.Password, basic.BasicAuth = s.config.User, s.config.Password, true
	// The root of a service is for everybody.
	client, err := gofish.ConnectContext(ctx, settings)
	if status(err) == http.StatusUnauthorized && s.config.User != "" {
		client, err = gofish.ConnectContext(ctx, basic)
	}
	if err != nil {
		return s.loginFault(err)
	}
	s.session, s.token = "", ""
	if s.config.User == "" {
		s.client = client
		return nil
	}
	auth, err := client.Service.CreateSession(s.config.User, s.config.Password)
	switch {
	case err == nil && auth.Token != "":
		s.session, s.token = auth.Session, auth.Token
		settings.Session = &gofish.Session{ID: auth.Session, Token: auth.Token}
		client, err = gofish.ConnectContext(ctx, settings)
	case err == nil, without(err):
		client, err = gofish.ConnectContext(ctx, basic)
	}
	if err != nil {
		return s.loginFault(err)
	}
	s.client = client
	return nil
}

// without reports whether an error of opening a session means that the service
// has no sessions.
func without(err error) bool {
	switch status(err) {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	var netErr net.Error
	return status(err) == 0 && !errors.As(err, &netErr) && strings.Contains(err.Error(), "no target")
}

func (s *service) loginFault(err error) error {
	err = s.fault(err)
	if errors.Is(err, sensors.ErrPermission) && !errors.Is(err, errCertificate) {
		return s.refuse(err)
	}
	return err
}

// refuse puts the next login off.
func (s *service) refuse(err error) error {
	s.retryIn = min(max(2*s.retryIn, firstPause), lastPause)
	s.retryAt = s.now().Add(s.retryIn)
	s.refused = err
	return err
}

// end ends the session. Controllers have few of them.
func (s *service) end() {
	if s.client != nil && s.session != "" {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		if resp, err := s.client.WithContext(ctx).Delete(s.session); err == nil {
			_ = resp.Body.Close()
		}
	}
	s.client, s.session, s.token = nil, "", ""
}

func (s *service) close() {
	s.end()
	s.http.CloseIdleConnections()
}

// CloseIdleConnections makes http.Client find that of the transport.
func (b bounded) CloseIdleConnections() { b.Transport.CloseIdleConnections() }

// errCertificate is returned when the controller's certificate is not trusted.
var errCertificate = errors.New("its certificate is not trusted")

// status returns the HTTP status of an error, 0 for one of another kind.
func status(err error) int {
	var answer *schemas.Error
	if errors.As(err, &answer) {
		return answer.HTTPReturnedStatusCode
	}
	return 0
}

// fault gives an error the sentinel that says what can be done about it, and
// leaves out what is secret.
func (s *service) fault(err error) error {
	var untrusted *tls.CertificateVerificationError
	var netErr net.Error
	var opErr *net.OpError
	sentinel := sensors.ErrTransient
	switch code := status(err); {
	case err == nil:
		return nil
	case code == http.StatusUnauthorized:
		return fmt.Errorf("redfish: %w: it knows no such user and password (401)", sensors.ErrPermission)
	case code == http.StatusForbidden:
		return fmt.Errorf("redfish: %w: it does not let this user read (403): %s", sensors.ErrPermission, s.message(err))
	case code == http.StatusNotFound:
		return fmt.Errorf("redfish: %w: it has no such resource (404)", sensors.ErrUnsupported)
	case code != 0:
		return fmt.Errorf("redfish: %w: it answers %d %s: %s", sensors.ErrTransient, code, http.StatusText(code), s.message(err))
	case errors.Is(err, sensors.ErrTransient), errors.Is(err, sensors.ErrUnsupported):
		return fmt.Errorf("redfish: %w", err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("redfish: %w: %w: %s", sensors.ErrPermission, errCertificate, s.redact(untrusted.Err.Error()))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("redfish: %w", sensors.ErrTimeout)
	case errors.As(err, &opErr):
		sentinel = sensors.ErrLost
	}
	return fmt.Errorf("redfish: %w: %s", sentinel, s.redact(err.Error()))
}

// message is what the controller says of an error, in short.
func (s *service) message(err error) string {
	var answer *schemas.Error
	if !errors.As(err, &answer) {
		return ""
	}
	text := answer.Message
	for _, info := range answer.ExtendedInfos {
		if info.Message != "" {
			text = info.Message
			break
		}
	}
	return fmt.Sprintf("%q", s.redact(text))
}

// redact shortens a text and takes the secrets out of it, in whatever form they
// are sent.
func (s *service) redact(text string) string {
	pair := s.config.User + ":" + s.config.Password
	quoted, _ := json.Marshal(s.config.Password)
	for _, secret := range []string{
		base64.StdEncoding.EncodeToString([]byte(pair)), strings.Trim(string(quoted), `"`), s.config.Password, s.token, s.session,
	} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	const most = 160
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}
