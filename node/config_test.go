package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/iam"
)

func validConfig() Config {
	return Config{
		Name: "a", DataDir: "data", Drives: []string{"drive"},
		GRPC: ListenerConfig{Addr: "127.0.0.1:0"}, HTTP: ListenerConfig{Addr: "localhost:0"}, Peer: ListenerConfig{Addr: "[::1]:0"},
		RootKeys: rootKeys(iam.Generate("root")), MeshSecrets: func() [][]byte { return [][]byte{make([]byte, 32)} },
		Peers: []Peer{{"a", "http://10.0.0.1:7402"}, {"b", "http://10.0.0.2:7402"}},
	}
}

func TestValidate(t *testing.T) {
	good := validConfig()
	if err := good.Validate(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		field  string
		says   string
	}{
		"no name":               {func(c *Config) { c.Name = "" }, "Name", "node name"},
		"a name in capitals":    {func(c *Config) { c.Name = "A" }, "Name", `"A"`},
		"a name not in peers":   {func(c *Config) { c.Name = "z" }, "Name", "a, b"},
		"no data directory":     {func(c *Config) { c.DataDir = "" }, "DataDir", "empty"},
		"no drive":              {func(c *Config) { c.Drives = nil }, "Drives", "at least one"},
		"a drive twice":         {func(c *Config) { c.Drives = []string{"x", "x"} }, "Drives", "x is named twice"},
		"an address":            {func(c *Config) { c.GRPC.Addr = "nonsense" }, "GRPC.Addr", "nonsense"},
		"a port":                {func(c *Config) { c.HTTP.Addr = "127.0.0.1:99999" }, "HTTP.Addr", "99999"},
		"off loopback":          {func(c *Config) { c.Peer.Addr = "0.0.0.0:7402" }, "Peer.Addr", "0.0.0.0:7402"},
		"off loopback, a name":  {func(c *Config) { c.HTTP.Addr = "example.com:80" }, "HTTP.Addr", "not a loopback"},
		"half a certificate":    {func(c *Config) { c.HTTP.CertFile = "x" }, "HTTP.CertFile", "together"},
		"an authority alone":    {func(c *Config) { c.Peer.CAFile = "x" }, "Peer.CAFile", "need TLS"},
		"no root key":           {func(c *Config) { c.RootKeys = nil }, "RootKeys", "closed by default"},
		"an empty root key":     {func(c *Config) { c.RootKeys = rootKeys(iam.Credential{}) }, "RootKeys", "closed by default"},
		"no mesh secret":        {func(c *Config) { c.MeshSecrets = nil }, "MeshSecrets", "missing"},
		"no mesh secret at all": {func(c *Config) { c.MeshSecrets = func() [][]byte { return nil } }, "MeshSecrets", "missing"},
		"two certificates":      {func(c *Config) { c.HTTP.Auto, c.HTTP.CertFile, c.HTTP.KeyFile = true, "x", "y" }, "HTTP.CertFile", "only one"},
		"two authorities":       {func(c *Config) { c.Peer.Auto, c.Peer.CAFile = true, "x" }, "Peer.CAFile", "the mesh's own"},
		"plaintext peers":       {func(c *Config) { c.Peer.Auto = true }, "Peers", "has a certificate"},
		"a pool in capitals":    {func(c *Config) { c.Pool = "Cold" }, "Pool", `"Cold"`},
		"a zone with a slash":   {func(c *Config) { c.Zone = "a/b" }, "Zone", `"a/b"`},
		"a negative patience":   {func(c *Config) { c.Heal.After = -1 }, "Heal.After", "negative"},
		"a negative rate":       {func(c *Config) { c.Heal.BytesPerSecond = -1 }, "Heal.BytesPerSecond", "-1"},
		"a negative period":     {func(c *Config) { c.Heal.ScrubPeriod = -1 }, "Heal.ScrubPeriod", "negative"},
		"a negative reserve":    {func(c *Config) { c.ReserveBytes = -1 }, "ReserveBytes", "-1"},
		"a peer's name":         {func(c *Config) { c.Peers[1].Name = "-" }, "Peers", `"-"`},
		"a peer twice":          {func(c *Config) { c.Peers[1].Name = "a" }, "Peers", "a is named twice"},
		"a peer's address":      {func(c *Config) { c.Peers[1].URL = "10.0.0.2:7402" }, "Peers", "base URL"},
		"one address twice":     {func(c *Config) { c.Peers[1].URL = c.Peers[0].URL + "/" }, "Peers", "same address"},
		"a mesh half in TLS":    {func(c *Config) { c.Peers[1].URL = "https://10.0.0.2:7402" }, "Peers", "has none"},
		"an origin with a path": {func(c *Config) { c.CORS.Origins = []string{"https://a/b"} }, "CORS.Origins", "https://a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := validConfig()
			tc.change(&cfg)
			err := cfg.Validate()
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != tc.field || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("want field %s with %q, got %v", tc.field, tc.says, err)
			}
		})
	}
}

func TestOffLoopbackIsAllowedOnPurpose(t *testing.T) {
	cfg := validConfig()
	cfg.Peer.Addr, cfg.Peer.Insecure = "0.0.0.0:7402", true
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
