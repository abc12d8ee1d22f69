package redfish

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	user   = "monitor"
	secret = `s3cr:et"ü`
)

// controller is a management controller with the resources of a test.
type controller struct {
	*httptest.Server
	ca string // a file with its certificate

	mu        sync.Mutex
	resources map[string]string
	// before sees each request that is let in, and may answer it itself.
	before func(w http.ResponseWriter, r *http.Request) bool
	// noSessions and noBasic are the ways to log in that it does not have.
	noSessions, noBasic, open bool
	tokens                    map[string]bool
	logins, logouts           int
	requests                  []string
}

func newController(t testing.TB, resources map[string]string) *controller {
	t.Helper()
	c := &controller{resources: resources, tokens: map[string]bool{}}
	c.Server = httptest.NewUnstartedServer(c)
	c.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.StartTLS()
	t.Cleanup(c.Server.Close)
	c.ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	if err := os.WriteFile(c.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *controller) config() Config {
	return Config{URL: c.URL, User: user, Password: secret, CAFile: c.ca}
}

// set changes a resource.
func (c *controller) set(path, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources[path] = text
}

// expire ends all sessions, as a controller does when it restarts.
func (c *controller) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.tokens)
}

func (c *controller) counts() (logins, logouts, sessions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logins, c.logouts, len(c.tokens)
}

const sessionsPath = "/redfish/v1/SessionService/Sessions"

func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r.Method+" "+r.URL.RequestURI())
	path := strings.TrimRight(r.URL.Path, "/")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
	in := c.open || c.tokens[r.Header.Get("X-Auth-Token")] || !c.noBasic && r.Header.Get("Authorization") == basic
	switch {
	case r.Method == http.MethodPost && path == sessionsPath && !c.noSessions:
		c.logins++
		var body struct{ UserName, Password string }
		if json.NewDecoder(r.Body).Decode(&body) != nil || body.UserName != user || body.Password != secret {
			answer(w, http.StatusUnauthorized, failure("The login of "+body.UserName+" with "+body.Password+" failed."))
			return
		}
		token := fmt.Sprintf("token-%d", c.logins)
		c.tokens[token] = true
		w.Header().Set("X-Auth-Token", token)
		w.Header().Set("Location", sessionsPath+"/"+token)
		answer(w, http.StatusCreated, `{"Id":"1"}`)
	case r.Method == http.MethodPost:
		answer(w, http.StatusMethodNotAllowed, failure("POST is not allowed."))
	case r.Method == http.MethodDelete && in:
		c.logouts++
		delete(c.tokens, path[strings.LastIndex(path, "/")+1:])
		w.WriteHeader(http.StatusNoContent)
	case path == root:
		text := c.resources[root]
		if text == "" {
			text = `{"@odata.id":"/redfish/v1/","RedfishVersion":"1.11.0","Systems":{"@odata.id":"/redfish/v1/Systems"},"Chassis":{"@odata.id":"/redfish/v1/Chassis"},
				"SessionService":{"@odata.id":"/redfish/v1/SessionService"},"Links":{"Sessions":{"@odata.id":"` + sessionsPath + `"}}}`
		}
		answer(w, http.StatusOK, text)
	case !in:
		answer(w, http.StatusUnauthorized, failure("Log in first."))
	case c.before != nil && c.before(w, r):
	default:
		key := path
		if r.URL.RawQuery != "" {
			key += "?" + r.URL.RawQuery
		}
		if text, found := c.resources[key]; found {
			answer(w, http.StatusOK, text)
			return
		}
		answer(w, http.StatusNotFound, failure("no "+path))
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}

func failure(message string) string {
	text, _ := json.Marshal(message)
	return fmt.Sprintf(`{"error":{"code":"Base.1.8.GeneralError","message":"See ExtendedInfo.","@Message.ExtendedInfo":[{"MessageId":"Base.1.8.X","Message":%s}]}}`, text)
}

func members(paths ...string) string {
	var links []string
	for _, p := range paths {
		links = append(links, `{"@odata.id":"`+p+`"}`)
	}
	return fmt.Sprintf(`{"Members@odata.count":%d,"Members":[%s]}`, len(paths), strings.Join(links, ","))
}

// iDRAC is a Dell PowerEdge: a server with a storage enclosure, and both ways to
// tell the power.
func iDRAC() map[string]string {
	return map[string]string{
		"/redfish/v1/Systems": members("/redfish/v1/Systems/System.Embedded.1"),
		"/redfish/v1/Systems/System.Embedded.1": `{"@odata.id":"/redfish/v1/Systems/System.Embedded.1","Id":"System.Embedded.1","HostName":"gpu01","Links":{
			"Chassis":[{"@odata.id":"/redfish/v1/Chassis/System.Embedded.1"}],"Chassis@odata.count":1}}`,
		"/redfish/v1/Chassis": members("/redfish/v1/Chassis/System.Embedded.1", "/redfish/v1/Chassis/Enclosure.Internal.0-1:RAID.SL.3-1"),
		"/redfish/v1/Chassis/System.Embedded.1": `{"@odata.id":"/redfish/v1/Chassis/System.Embedded.1","Id":"System.Embedded.1","ChassisType":"RackMount",
			"Manufacturer":"Dell Inc.","Model":"PowerEdge XE9680","Power":{"@odata.id":"/redfish/v1/Chassis/System.Embedded.1/Power"},
			"EnvironmentMetrics":{"@odata.id":"/redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics"},
			"Links":{"ComputerSystems":[{"@odata.id":"/redfish/v1/Systems/System.Embedded.1"}]}}`,
		"/redfish/v1/Chassis/System.Embedded.1/EnvironmentMetrics": `{"Id":"EnvironmentMetrics","PowerWatts":{"DataSourceUri":"/redfish/v1/Chassis/System.Embedded.1/Sensors/TotalPower","Reading":1320}}`,
		"/redfish/v1/Chassis/System.Embedded.1/Power": `{"Id":"Power","PowerControl":[{"MemberId":"PowerControl","Name":"System Power Control","PowerConsumedWatts":1309,
			"PowerMetrics":{"AverageConsumedWatts":1290,"IntervalInMin":1}}],"PowerSupplies":[{"LastPowerOutputWatts":640},{"LastPowerOutputWatts":650}]}`,
	}
}

// iLO is an HPE ProLiant of before 2021: paths that end with a slash, and Power
// alone.
func iLO() map[string]string {
	return map[string]string{
		"/redfish/v1/Systems":   members("/redfish/v1/Systems/1/"),
		"/redfish/v1/Systems/1": `{"@odata.id":"/redfish/v1/Systems/1/","Id":"1","HostName":"node7","Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/1/"}]}}`,
		"/redfish/v1/Chassis/1": `{"@odata.id":"/redfish/v1/Chassis/1/","Id":"1","Manufacturer":"HPE","Model":"ProLiant DL380 Gen10","Power":{"@odata.id":"/redfish/v1/Chassis/1/Power/"},"Links":{}}`,
		"/redfish/v1/Chassis/1/Power": `{"Id":"Power","PowerControl":[{"@odata.id":"/redfish/v1/Chassis/1/Power/#PowerControl/0","MemberId":"0","PowerCapacityWatts":1600,
			"PowerConsumedWatts":165,"PowerMetrics":{"AverageConsumedWatts":167,"IntervalInMin":20,"MaxConsumedWatts":270,"MinConsumedWatts":159}}]}`,
	}
}

// supermicro gives the power as a text, and has a second chassis without one.
func supermicro() map[string]string {
	return map[string]string{
		"/redfish/v1/Systems":                              members("/redfish/v1/Systems/1"),
		"/redfish/v1/Systems/1":                            `{"Id":"1","HostName":"","Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/HA-RAID.0.StorageEnclosure.0"},{"@odata.id":"/redfish/v1/Chassis/1"}]}}`,
		"/redfish/v1/Chassis/1":                            `{"Id":"1","Manufacturer":"Supermicro","Model":"SYS-421GE","Power":{"@odata.id":"/redfish/v1/Chassis/1/Power"}}`,
		"/redfish/v1/Chassis/1/Power":                      `{"PowerControl":[{"MemberId":"0","Name":"System Power Control","PowerConsumedWatts":"2750","PhysicalContext":"Chassis"}]}`,
		"/redfish/v1/Chassis/1/PowerSubsys":                `{}`,
		"/redfish/v1/Chassis/HA-RAID.0.StorageEnclosure.0": `{"Id":"HA-RAID.0.StorageEnclosure.0","ChassisType":"Enclosure"}`,
	}
}

// lenovo tells the power of the machine and, beside it, of its parts.
func lenovo() map[string]string {
	r := iLO()
	r["/redfish/v1/Chassis/1/Power"] = `{"PowerControl":[
		{"Name":"CPU Sub-system Power","PhysicalContext":"CPU","PowerConsumedWatts":210},
		{"Name":"Memory Sub-system Power","PhysicalContext":"Memory","PowerConsumedWatts":40},
		{"Name":"Server Power Control","PhysicalContext":"Chassis","PowerConsumedWatts":431}]}`
	return r
}

// dgx is an NVIDIA DGX: the machine, and its GPU baseboard as a system and a
// chassis of their own, which the chassis of the machine contains.
func dgx() map[string]string {
	r := map[string]string{
		"/redfish/v1/Systems":                 members("/redfish/v1/Systems/HGX_Baseboard_0", "/redfish/v1/Systems/DGX"),
		"/redfish/v1/Systems/DGX":             `{"Id":"DGX","HostName":"dgx-01","Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/HGX_Chassis_0"},{"@odata.id":"/redfish/v1/Chassis/CPU_Board"},{"@odata.id":"/redfish/v1/Chassis/DGX"}]}}`,
		"/redfish/v1/Systems/HGX_Baseboard_0": `{"Id":"HGX_Baseboard_0","Links":{"Chassis":[{"@odata.id":"/redfish/v1/Chassis/HGX_Chassis_0"}]}}`,
	}
	for name, c := range map[string]struct{ watts, inside string }{"DGX": {"6120.5", ""}, "HGX_Chassis_0": {"4410.25", "DGX"}, "CPU_Board": {"700", "DGX"}} {
		path := "/redfish/v1/Chassis/" + name
		contained := ""
		if c.inside != "" {
			contained = `"ContainedBy":{"@odata.id":"/redfish/v1/Chassis/` + c.inside + `/"}`
		}
		r[path] = fmt.Sprintf(`{"Id":%q,"Manufacturer":"NVIDIA","Model":"DGXH100","EnvironmentMetrics":{"@odata.id":"%s/EnvironmentMetrics"},"Links":{%s}}`, name, path, contained)
		r[path+"/EnvironmentMetrics"] = fmt.Sprintf(`{"PowerWatts":{"Reading":%s},"EnergykWh":{"Reading":12.5}}`, c.watts)
	}
	return r
}

// slow answers when the test is over.
func slow(_ http.ResponseWriter, r *http.Request) bool {
	select {
	case <-r.Context().Done():
	case <-time.After(20 * time.Second):
	}
	return true
}
