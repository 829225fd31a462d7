package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/certs"
	"github.com/gridloom/gridloom/node/iam"
)

// testKey is a key that no node has.
var testKey = iam.Generate(iam.RootID).String()

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// loadSettings parses flags, variables and, if yaml isn't empty, a file called
// gridloom.yaml in the current directory.
func loadSettings(t *testing.T, command, yaml string, env, flags []string) (*settings, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if yaml != "" {
		writeFile(t, "gridloom.yaml", yaml)
		env = append([]string{"GRIDLOOM_CONFIG=gridloom.yaml"}, env...)
	}
	s := newSettings(command)
	if err := s.flags.flags.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return s, s.load(env)
}

// Every row of the table must be sound: what is wrong here could otherwise
// show only when someone uses that setting.
func TestTable(t *testing.T) {
	names, vars := map[string]bool{}, map[string]bool{}
	for _, row := range table() {
		if names[row.flag()] || vars[row.env()] {
			t.Errorf("%s: the flag or the variable is another setting's too", row.path)
		}
		names[row.flag()], vars[row.env()] = true, true
		if bounds := row.tag.Get("range"); bounds != "" {
			low, high, _ := strings.Cut(bounds, "-")
			from, err1 := strconv.Atoi(low)
			to, err2 := strconv.Atoi(high)
			if err1 != nil || err2 != nil || from >= to {
				t.Errorf("%s: range %q", row.path, bounds)
			}
		}
		used := false
		for _, command := range []string{forServe, forDev, forClient} {
			if !row.of(command) {
				continue
			}
			used = true
			if help := row.help(command); help == "" || strings.Contains(help, "{}") || !strings.Contains(help, row.arg()) {
				t.Errorf("%s: help %q; want %s in it", row.path, help, row.arg())
			}
			l := newLayer([]setting{row}, command, fromDefault) // panics on a bad type or default
			if f := l.flags.Lookup(row.flag()); row.def(command) != "" {
				if err := f.Value.(*checked).check(); err != nil {
					t.Errorf("%s: default of %s: %v", row.path, command, err)
				}
			}
		}
		if !used {
			t.Errorf("%s: no command has it: in %q", row.path, row.tag.Get("in"))
		}
		if _, secret := row.tag.Lookup("secret"); secret && row.from(forServe, fromFlag) {
			t.Errorf("%s: a secret with a flag in serve", row.path)
		}
	}
	for field := range map[string]bool{"Name": true, "GRPC.Addr": true, "HTTP.CertFile": true, "Peer.CAFile": true, "Limits.Uploads": true, "OTLP": true,
		"Pool": true, "Zone": true, "Heal.After": true, "Heal.BytesPerSecond": true, "Heal.ScrubPeriod": true,
		"CORS.Origins": true, "CORS.Methods": true, "CORS.Expose": true, "CORS.MaxAge": true, "MetricsBuckets": true} {
		found := false
		for _, row := range table() {
			found = found || row.node == field
		}
		if !found {
			t.Errorf("no setting becomes node.Config's %s", field)
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := loadSettings(t, forServe, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config{Data: "gridloom-data", TLS: "files", Pool: "default"}
	want.Heal.After, want.Heal.Rate, want.Scrub.Period = 15*time.Minute, 256<<20, 14*24*time.Hour
	want.GRPC.Addr, want.HTTP.Addr, want.Peer.Addr = "127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402"
	want.Log.Level, want.Log.Format = "info", "text"
	want.Audit.Level, want.Audit.Size, want.Audit.Keep = "changes", 64<<20, 10
	want.Limit = s.Limit // TestLimits looks at them
	want.CORS.MaxAge = 10 * time.Minute
	if diff := cmp.Diff(want, s.config); diff != "" {
		t.Errorf("serve (-want +got):\n%s", diff)
	}
	if s, err = loadSettings(t, forDev, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	want = config{Nodes: 3, Pools: 1, Drives: 2, Port: 7400}
	want.Heal.After, want.Heal.Rate, want.Scrub.Period = 15*time.Minute, 256<<20, 14*24*time.Hour
	want.Log.Level, want.Log.Format, want.Audit.Level = "warn", "text", "changes"
	want.CORS = s.CORS
	want.Limit = s.Limit
	if diff := cmp.Diff(want, s.config); diff != "" {
		t.Errorf("dev (-want +got):\n%s", diff)
	}
	if s, err = loadSettings(t, forClient, "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config{Endpoint: "127.0.0.1:7400", Timeout: 30 * time.Second}, s.config); diff != "" {
		t.Errorf("client (-want +got):\n%s", diff)
	}
}

// TestLimits: the defaults are those of package node, and every field arrives in
// the one of its name.
func TestLimits(t *testing.T) {
	for _, command := range []string{forServe, forDev} {
		s, err := loadSettings(t, command, "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(node.DefaultLimits(), s.limits()); diff != "" {
			t.Errorf("%s: the defaults (-node's +the table's):\n%s", command, diff)
		}
	}
	var s settings
	from := reflect.ValueOf(&s.Limit).Elem()
	for i := range from.NumField() {
		from.Field(i).SetInt(int64(i + 1))
	}
	l := s.limits()
	into := reflect.ValueOf(l)
	if into.NumField() != from.NumField() {
		t.Errorf("%d settings for %d limits", from.NumField(), into.NumField())
	}
	for i := range from.NumField() {
		if name := from.Type().Field(i).Name; into.FieldByName(name).Int() != int64(i+1) {
			t.Errorf("%s is %d, want %d", name, into.FieldByName(name).Int(), i+1)
		}
	}
}

const sampleYAML = `
# a comment
name: from-file
http:
  addr: file:1
  cert: file.pem
grpc: {addr: "file:2"}
drive: [/a, "/b,c"]
peers:
  a: http://10.0.0.1:7402
  b: http://10.0.0.2:7402
reserve: 1.5 GiB
pool: warm
zone: rack-1
heal: {after: 1h, rate: 64MiB}
insecure: grpc
otlp:
  insecure: true
cors:
  origin: [https://app.example.com, "http://localhost:3000"]
`

func TestPrecedence(t *testing.T) {
	s, err := loadSettings(t, forServe, sampleYAML,
		[]string{"HOME=/root", "GRIDLOOM_HTTP_ADDR=env:1", "GRIDLOOM_GRPC_ADDR=env:2", "GRIDLOOM_ENDPOINT=a-client's", "GRIDLOOM_DATA=", "GRIDLOOM_POOL=cold", "GRIDLOOM_SCRUB_PERIOD=24h", "GRIDLOOM_CORS_METHOD=GET,HEAD"},
		[]string{"--grpc-addr", "flag:2", "--insecure", "http", "--insecure", "peer,grpc", "--cors-max-age", "1m"})
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		ConfigFile: "gridloom.yaml", Name: "from-file", Data: "gridloom-data", Drive: []string{"/a", "/b,c"},
		Peers:   peerList{{Name: "a", URL: "http://10.0.0.1:7402"}, {Name: "b", URL: "http://10.0.0.2:7402"}},
		Reserve: 3 << 29, Insecure: []string{"http", "peer", "grpc"}, TLS: "files",
		Pool: "cold", Zone: "rack-1",
	}
	want.Heal.After, want.Heal.Rate, want.Scrub.Period = time.Hour, 64<<20, 24*time.Hour
	want.HTTP.Addr, want.HTTP.Cert, want.GRPC.Addr, want.Peer.Addr = "env:1", "file.pem", "flag:2", "127.0.0.1:7402"
	want.OTLP.Insecure = true
	want.Log.Level, want.Log.Format = "info", "text"
	want.Audit.Level, want.Audit.Size, want.Audit.Keep = "changes", 64<<20, 10
	want.Limit, want.CORS = s.Limit, s.CORS
	if got := s.nodeConfig().CORS; !slices.Equal(got.Origins, []string{"https://app.example.com", "http://localhost:3000"}) ||
		!slices.Equal(got.Methods, []string{"GET", "HEAD"}) || got.MaxAge != time.Minute || got.Expose != nil {
		t.Errorf("CORS: %+v", got)
	}
	if diff := cmp.Diff(want, s.config); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever is wrong is laid at the door of the one who said it.
func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		name, command, yaml string
		env                 []string
		want                string
	}{
		{"unknown variable", forServe, "", []string{"GRIDLOOM_HTTP_CRET=x"}, "GRIDLOOM_HTTP_CRET: no such setting; did you mean GRIDLOOM_HTTP_CERT?"},
		{"unknown variable, client", forClient, "", []string{"GRIDLOOM_ENDPOIN=x"}, "GRIDLOOM_ENDPOIN: no such setting; did you mean GRIDLOOM_ENDPOINT?"},
		{"variable of the other server", forServe, "", []string{"GRIDLOOM_NODES=3"}, "GRIDLOOM_NODES: gridloom serve has no such setting"},
		{"variable with a bad value", forServe, "", []string{"GRIDLOOM_OTLP_INSECURE=maybe"}, `--otlp-insecure (from GRIDLOOM_OTLP_INSECURE): "maybe" is neither true nor false`},
		{"out of a list", forServe, "", []string{"GRIDLOOM_LOG_LEVEL=loud"}, `--log-level (from GRIDLOOM_LOG_LEVEL): "loud" is none of debug, info, warn, error`},
		{"element out of a list", forServe, "", []string{"GRIDLOOM_INSECURE=http,ftp"}, `--insecure (from GRIDLOOM_INSECURE): "http,ftp" is none of grpc, http, peer`},
		{"peers", forServe, "", []string{"GRIDLOOM_PEERS=a"}, `"a" is not NAME=URL`},
		{"size", forServe, "reserve: 5 potatoes", nil, `gridloom.yaml:1: reserve: "5 potatoes" is not a size`},
		{"overridden and bad all the same", forServe, "log: {level: loud}", []string{"GRIDLOOM_LOG_LEVEL=info"}, `gridloom.yaml:1: log.level: "loud" is none of`},
		{"unknown path", forServe, "name: a\nhttp:\n  crt: x\n", nil, "gridloom.yaml:3: http.crt: no such setting; did you mean http.cert?"},
		{"flag's spelling", forServe, "http-cert: x", nil, "gridloom.yaml:1: http-cert: no such setting; did you mean http.cert?"},
		{"dev's", forServe, "nodes: 3", nil, "gridloom.yaml:1: nodes: no such setting"},
		{"secret", forServe, "key: " + testKey, nil, "gridloom.yaml:1: key: no such setting"},
		{"twice", forServe, "name: a\ndata: d\nname: b\n", nil, "gridloom.yaml:3: name: set twice, first on line 1"},
		{"twice, nested", forServe, "http: {addr: a}\nhttp: {cert: b}\n", nil, "gridloom.yaml:2: http: set twice, first on line 1"},
		{"value for a group", forServe, "\nhttp: 1.2.3.4:5", nil, "gridloom.yaml:2: http: want settings below it"},
		{"group for a value", forServe, "name: {a: b}", nil, "gridloom.yaml:1: name: want a value, not settings below it"},
		{"list for a value", forServe, "name:\n  - a\n", nil, `gridloom.yaml:2: name: "a" takes one value`},
		{"no value", forServe, "name:\n", nil, "gridloom.yaml:1: name: want a value"},
		{"alias", forServe, "name: &x a\ndata: *x\n", nil, "gridloom.yaml:2: data: want a value"},
		{"merge", forServe, "name: a\n<<: {data: b}\n", nil, "gridloom.yaml:2: <<: no such setting"},
		{"no mapping", forServe, "- a\n", nil, "gridloom.yaml:1: want settings"},
		{"two documents", forServe, "name: a\n---\nname: b\n", nil, "gridloom.yaml: holds more than one YAML document"},
		{"no YAML", forServe, "name: [a\n", nil, "gridloom.yaml: line "},
		{"no file", forServe, "", []string{"GRIDLOOM_CONFIG=none.yaml"}, "--config (from GRIDLOOM_CONFIG): open none.yaml"},
		{"bad secret", forServe, "", []string{`GRIDLOOM_MESH_SECRET=a"sesame`}, "GRIDLOOM_MESH_SECRET: can't be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := loadSettings(t, c.command, c.yaml, c.env, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitUsage {
				t.Errorf("exit code %d\n got %v\nwant %s", exitCode(err), err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "sesame") {
				t.Error("a secret is in the message")
			}
		})
	}
}

// Kubernetes sets such variables for a service called gridloom or gridloom-x.
func TestServiceLinksAreIgnored(t *testing.T) {
	env := []string{
		"GRIDLOOM_SERVICE_HOST=10.0.0.1", "GRIDLOOM_SERVICE_PORT=7400", "GRIDLOOM_SERVICE_PORT_GRPC=7400",
		"GRIDLOOM_PORT=tcp://10.0.0.1:7400", "GRIDLOOM_PORT_7400_TCP=tcp://10.0.0.1:7400", "GRIDLOOM_PORT_7400_TCP_ADDR=10.0.0.1",
		"GRIDLOOM_PORT_7400_TCP_PORT=7400", "GRIDLOOM_PORT_7400_TCP_PROTO=tcp",
		"GRIDLOOM_PEER_SERVICE_HOST=10.0.0.2", "GRIDLOOM_PEER_PORT=tcp://10.0.0.2:7402",
	}
	for _, command := range []string{forServe, forDev, forClient} {
		s, err := loadSettings(t, command, "", env, nil)
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
		if command == forDev && s.Port != 7400 {
			t.Errorf("dev: port %d", s.Port)
		}
	}
}

// What package node finds wrong is said in the words of whoever set it.
func TestNodeErrorsNameTheSource(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		env, flags []string
		want       string
	}{
		{"flag", "", nil, []string{"--http-cert", "a.pem"}, "--http-cert: a certificate and its key are given together"},
		{"variable", "", []string{"GRIDLOOM_HTTP_CERT=a.pem"}, nil, "--http-cert (from GRIDLOOM_HTTP_CERT): a certificate and its key"},
		{"file", "data: d\nhttp:\n  cert: a.pem\n", nil, nil, "gridloom.yaml:3: http.cert: a certificate and its key"},
		{"default", "", nil, []string{"--peers", "a=http://10.0.0.1:7402"}, "--name: "},
		{"open", "", nil, []string{"--grpc-addr", "0.0.0.0:7400"}, "--insecure=grpc"},
		{"no address", "", nil, []string{"--grpc-addr", "0.0.0.0:99999"}, "invalid port"},
		{"open in a file", "peer: {addr: 10.0.0.1:7402}", nil, nil, "gridloom.yaml:1: peer.addr: 10.0.0.1:7402 is not a loopback address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := loadSettings(t, forServe, c.yaml, c.env, c.flags)
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.nodeConfig()
			cfg.RootKeys, cfg.MeshSecrets = given(iam.Generate(iam.RootID)).get, given(make([]byte, 32)).get
			if err = s.aboutNode(s.hintInsecure(cfg.Validate())); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("\n got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestMeshNeedsSharedSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, iam.NewMeshSecret()+"\n"+iam.NewMeshSecret()+"\n")
	mesh := []string{"serve", "--name", "a", "--peers", "a=http://127.0.0.1:7402,b=http://127.0.0.1:7412", "--data", t.TempDir() + "/data"}
	wantUsage(t, try(t, nil, "", mesh...), "a mesh needs one root key", "--key-file or GRIDLOOM_KEY")
	wantUsage(t, try(t, []string{"GRIDLOOM_KEY=" + testKey}, "", mesh...), "a mesh needs one secret", "--mesh-secret-file or GRIDLOOM_MESH_SECRET")
	wantUsage(t, try(t, []string{"GRIDLOOM_KEY=" + testKey, "GRIDLOOM_MESH_SECRET=short"}, "", mesh...), "GRIDLOOM_MESH_SECRET: ")

	s, err := loadSettings(t, forServe, "", []string{"GRIDLOOM_KEY=" + testKey, "GRIDLOOM_MESH_SECRET_FILE=" + secret}, mesh[1:])
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.nodeConfig()
	found, err := s.serveCredentials(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if keys := cfg.RootKeys(); found.keep != nil || len(cfg.MeshSecrets()) != 2 || len(keys) != 1 || keys[0].String() != testKey {
		t.Errorf("keep %v, %d secrets, %d keys; want nothing kept, both secrets and the key", found.keep, len(cfg.MeshSecrets()), len(keys))
	}
	if len(found.lists) != 1 || len(found.files) != 1 || found.files[0] != secret {
		t.Errorf("%v are read again; want %s", found.files, secret)
	}
}

func TestCredentialsAreKept(t *testing.T) {
	dir := t.TempDir()
	made := generateCredentials()
	if err := made.keep(dir); err != nil {
		t.Fatal(err)
	}
	again, err := readCredentials(dir, certs.ReadPrivate)
	if err != nil || !again.key.Equal(made.key) || again.secret != made.secret {
		t.Errorf("read back others, %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v; want the one", len(entries), err)
	}
	info, err := os.Stat(credentialsFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); os.PathSeparator == '/' && mode != 0o600 {
		t.Errorf("mode %o", mode)
	}
	// The file is one that --key-file reads.
	s, err := loadSettings(t, forClient, "", nil, []string{"--key-file", credentialsFile(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if key, ok, err := s.readKey(); !ok || err != nil || !key.Equal(made.key) {
		t.Errorf("key from %s: %v, %v", credentialsFile(dir), ok, err)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1024": 1024, "1KiB": 1024, "1.5 MiB": 3 << 19, "8 GiB": 8 << 30, "2TiB": 2 << 40} {
		var b byteSize
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q: %d, %v; want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1.5", "1 GB", "GiB", "9999999 TiB", "NaN GiB", "-1 KiB", "1e400 KiB", "Inf KiB", "9223372036854775808"} {
		b := byteSize(7)
		if err := b.Set(text); err == nil || b != 7 {
			t.Errorf("%q: %d, %v; want it refused", text, b, err)
		}
	}
	for n, want := range map[byteSize]string{0: "0", 1023: "1023", 1024: "1 KiB", 1536: "1.5 KiB", 5 << 30: "5 GiB"} {
		if got := n.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(n), got, want)
		}
	}
}

// No file, whatever is in it, makes the reader do anything but read or refuse.
func FuzzYAML(f *testing.F) {
	for _, seed := range []string{sampleYAML, "a: &a [*a]", "<<: *x", "? [a]\n: b", "name: !!binary x", "- - -", "peers: [a=b, c]", "drive: {a: b}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSettings(forServe)
		err := s.load([]string{"GRIDLOOM_CONFIG=" + name})
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("exit code %d: %v", exitCode(err), err)
		}
	})
}
