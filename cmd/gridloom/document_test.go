package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/node/iam"
)

//go:generate go test -count=1 -run ^TestConfigurationDocument$ . -update

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// docs/configuration.md is made from the table, so it can't say anything else.
func TestConfigurationDocument(t *testing.T) {
	name := filepath.Join("..", "..", "docs", "configuration.md")
	want := configurationDocument()
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table in config.go makes; run make generate", name)
	}
}

const documentHead = `<!-- Made from the table in cmd/gridloom/config.go by make generate. -->
# Configuration

Every setting has one name with three spellings: the path ` + "`http.cert-key`" + ` in a
YAML file is the flag ` + "`--http-cert-key`" + ` and the variable
` + "`GRIDLOOM_HTTP_CERT_KEY`" + `. A flag overrides a variable, a variable the file, and
the file the default. Each value that is given is checked, also one that
another overrides.

- A list takes commas, and its flag may be repeated. In YAML it is a sequence,
  whose elements may hold commas, or one value. ` + "`peers`" + ` may also be a mapping.
- A size is a number of bytes, or a number with KiB, MiB, GiB or TiB.
- A duration is a number with ms, s, m or h, like 1m30s.
- An empty variable is one that is not set.
- Unknown flags, variables that begin with ` + "`GRIDLOOM_`" + ` and YAML paths are errors,
  and so is a YAML path set twice. Variables that Kubernetes and Docker set for
  a service of that name (` + "`GRIDLOOM_SERVICE_HOST`, `GRIDLOOM_PORT=tcp://…`" + `) are
  ignored, and the clients' variables are ignored by the servers.
- An error about a value names the flag, the variable, or the file, line and
  path that it came from.

The key and the mesh secret have no flag in ` + "`gridloom serve`" + `: the arguments of a
process are there for every user of the machine to read. A file that
` + "`--key-file`" + ` or ` + "`--mesh-secret-file`" + ` names holds the secret alone, or a line
` + "`GRIDLOOM_KEY=…`" + ` or ` + "`GRIDLOOM_MESH_SECRET=…`" + ` as in an environment file.
`

const documentExample = `
A file for ` + "`gridloom serve --config gridloom.yaml`" + `:

` + "```yaml" + `
name: a
data: /var/lib/gridloom
drive: [/mnt/disk1, /mnt/disk2]
peers:
  a: https://10.0.0.1:7402
  b: https://10.0.0.2:7402
grpc:
  addr: 10.0.0.1:7400
  cert: /etc/gridloom/cert.pem
  cert-key: /etc/gridloom/key.pem
http:
  addr: 10.0.0.1:7401
insecure: [http]
peer:
  addr: 10.0.0.1:7402
  cert: /etc/gridloom/cert.pem
  cert-key: /etc/gridloom/key.pem
  ca: /etc/gridloom/ca.pem
key-file: /etc/gridloom/root.key
mesh-secret-file: /etc/gridloom/mesh.secret
` + "```" + `
`

func configurationDocument() string {
	var b strings.Builder
	b.WriteString(documentHead)
	for _, c := range []struct{ command, title, tail string }{
		{forServe, "gridloom serve", documentExample},
		{forDev, "gridloom dev", ""},
		{forClient, "Clients", ""},
	} {
		fmt.Fprintf(&b, "\n## %s\n", c.title)
		rows, yaml := table(), c.command == forServe
		if b.WriteString("\n| flag | variable |"); yaml {
			b.WriteString(" YAML |")
		}
		b.WriteString(" default | meaning |\n| --- | --- |")
		if yaml {
			b.WriteString(" --- |")
		}
		b.WriteString(" --- | --- |\n")
		for _, row := range rows {
			if !row.of(c.command) {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s |", codeIf(row.from(c.command, fromFlag), "--"+row.flag()), codeIf(row.from(c.command, fromEnv), row.env()))
			if yaml {
				fmt.Fprintf(&b, " %s |", codeIf(row.from(c.command, fromYAML), row.path))
			}
			def := row.def(c.command)
			fmt.Fprintf(&b, " %s | %s |\n", codeIf(def != "", def), strings.ReplaceAll(row.help(c.command), "|", `\|`))
		}
		b.WriteString(c.tail)
	}
	return b.String()
}

func codeIf(have bool, text string) string {
	if !have {
		return ""
	}
	return "`" + text + "`"
}

// The example in the document is a file that serve takes.
func TestDocumentExample(t *testing.T) {
	_, text, _ := strings.Cut(documentExample, "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	s, err := loadSettings(t, forServe, text, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.nodeConfig()
	cfg.RootKey, cfg.MeshSecrets = iam.Generate(iam.RootID), [][]byte{make([]byte, 32)}
	if err := s.aboutNode(cfg.Validate()); err != nil {
		t.Error(err)
	}
}
