package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gridloom/gridloom/node/iam"
)

//go:generate go test -count=1 -run ^TestDocuments$ . -update

var update = flag.Bool("update", false, "write the documents anew")

// The documents are made from the program, so they can't say anything else.
func TestDocuments(t *testing.T) {
	for file, want := range map[string]string{
		"configuration.md": configurationDocument(),
		"commands.md":      commandsDocument(),
	} {
		name := filepath.Join("..", "..", "docs", file)
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
			t.Errorf("%s is not what cmd/gridloom makes of it; run make generate", name)
		}
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
` + "`GRIDLOOM_KEY=…`" + ` or ` + "`GRIDLOOM_MESH_SECRET=…`" + ` as in an environment file. It is read
again when it changes, and must not be readable by others;
[operations.md](operations.md) has both rules, and the steps of a rotation.
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
tls: auto
tls-name: [storage.example.com]
grpc:
  addr: 10.0.0.1:7400
http: # with a certificate that browsers know
  addr: 10.0.0.1:7401
  cert: /etc/gridloom/cert.pem
  cert-key: /etc/gridloom/key.pem
peer:
  addr: 10.0.0.1:7402
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
	b.WriteString(otelDocument())
	return b.String()
}

const otelDocumentHead = `
## OpenTelemetry's variables

` + "`gridloom serve` and `gridloom dev`" + ` know the standard variables of OpenTelemetry
too, all of them by every node of the process. Where a setting of Gridloom's says
the same, the setting counts. ` + "`{}`" + ` stands for nothing, or for one signal:
` + "`METRICS_`, `TRACES_` or `LOGS_`" + `, which counts before the one for all.

A number or a word that can't be read is ignored, with a warning that names the
variable, and so is a number that is out of range: sizes are from 1 to 1048576,
times from 1 to 2147483647, limits from 0 to 2147483647. An endpoint, a protocol,
headers or a certificate that can't be used are an error: telemetry doesn't go
elsewhere instead.

| variable | meaning |
| --- | --- |
`

func otelDocument() string {
	var b strings.Builder
	b.WriteString(otelDocumentHead)
	for _, v := range otelTable {
		b.WriteString("| `" + v.name + "` | " + v.means + " |\n")
	}
	b.WriteString("\nThere is no `http/json`, no exporter but those above (`console` for metrics and traces, `zipkin`), and no `OTEL_ENTITIES`, which is experimental.\n")
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
	cfg.RootKeys, cfg.MeshSecrets = given(iam.Generate(iam.RootID)).get, given(make([]byte, 32)).get
	if err := s.aboutNode(cfg.Validate()); err != nil {
		t.Error(err)
	}
}

const commandsHead = `<!-- Made from the help texts in cmd/gridloom by make generate. -->
# Commands

This is what ` + "`gridloom COMMAND --help`" + ` says. What ` + "`serve`, `dev`" + ` and the clients
have in common (addresses, keys, TLS) is in [configuration.md](configuration.md).

Exit codes, which stay as they are:

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed; of several things, perhaps only some |
| 2 | the command can't be run as it was given; nothing was tried |
| 3 | the bucket or object is not there |

## JSON

With ` + "`--json`" + ` each result is one object on one line of standard output. Fields may
be added; none changes its meaning. Times are RFC 3339 in UTC, sizes are bytes,
checksums hexadecimal. What is unknown or empty is left out.

| what | shape |
| --- | --- |
| an object (put, get, stat, ls, cp, mv) | ` + "`{\"type\":\"object\", \"bucket\", \"key\", \"size\", \"etag\", \"modified_at\", \"content_type\", \"cache_control\", \"content_disposition\", \"content_encoding\", \"content_language\", \"metadata\":{}, \"sha256\", \"crc32c\", \"crc64nvme\"}`" + `; put and get add ` + "`file`" + `, and for a part ` + "`offset`" + ` and ` + "`length`" + ` |
| a folder (ls) | ` + "`{\"type\":\"prefix\", \"bucket\", \"prefix\"}`" + ` |
| a bucket (mb, rb, ls, stat) | ` + "`{\"type\":\"bucket\", \"bucket\", \"created_at\"}`" + `, and from rb ` + "`removed:true`" + ` |
| a removed object (rm) | ` + "`{\"type\":\"removed\", \"bucket\", \"key\"}`" + ` |
| the mesh (cluster, cluster status) | ` + "`{\"deployment_id\", \"node\", \"nodes\":[{\"name\", \"peer_url\", \"state\", \"version\", \"draining\", \"leaving\", \"clock_offset_seconds\", \"not_ready\", \"index\", \"drives\":[{\"id\", \"path\", \"state\", \"total_bytes\", \"used_bytes\", \"free_bytes\"}]}], \"groups\":[{\"name\", \"leader\", \"term\", \"commit_index\", \"applied_index\", \"members\":[{\"node\", \"role\", \"match_index\", \"lag\"}]}], \"warnings\":[]}`" + `; a lag that is left out is not known |
| a node (node ls) | ` + "`{\"type\":\"node\", and as in the mesh}`" + ` |
| a change of the nodes (node join, leave, replace, drain) | ` + "`{\"type\":\"node\", \"name\", \"peer_url\", \"change\"}`" + `, the change being join, leave, replace, drain or undrain |
| a certificate (certs) | ` + "`{\"type\":\"certificate\", \"node\", \"listener\", \"names\":[], \"issuer\", \"not_before\", \"not_after\", \"days_left\", \"sha256\"}`" + `; of a node that is down ` + "`{\"type\":\"node\", \"name\", \"state\":\"down\"}`" + ` |
| authorities (certs ca) | ` + "`{\"ca\"}`" + `, PEM |
| a node's start (serve) | ` + "`{\"name\", \"grpc\", \"http\", \"peer\", \"data\", \"ca\"}`" + ` |
| a mesh's start (dev) | ` + "`{\"nodes\":[as serve], \"metrics\", \"key\", \"data\", \"temporary\", \"bucket\", \"commands\":[]}`" + ` |
| secrets (keygen) | ` + "`{\"key\"}` or `{\"mesh_secret\"}`" + ` |
| version | ` + "`{\"version\", \"go\", \"os\", \"arch\"}`" + ` |
| an error, on standard error | ` + "`{\"error\":{\"command\", \"reason\", \"message\"}}`" + `, the reason being the node's, or one of usage, unavailable, deadline, canceled, checksum_mismatch, not_found, file_not_found, skipped and failed |

` + "`get … -`" + ` prints the object's bytes and nothing else.
`

func commandsDocument() string {
	var b strings.Builder
	b.WriteString(commandsHead)
	shared := map[string]bool{"help": true}
	for _, row := range table() {
		shared[row.flag()] = true
	}
	for _, cmd := range allCommands((&app{}).rootCommand()) {
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n```\n%s\n```\n", cmd.CommandPath(), escapeMarkdown(text), cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(&b, "\nExamples:\n\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(cmd.Example, "  "), "\n  ", "\n"))
		}
		var flags strings.Builder
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if shared[f.Name] {
				return
			}
			arg, usage := pflag.UnquoteUsage(f)
			name := strings.TrimSpace("--" + f.Name + " " + arg)
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			fmt.Fprintf(&flags, "| `%s` | %s |\n", name, usage)
		})
		if flags.Len() > 0 {
			fmt.Fprintf(&b, "\n| flag | meaning |\n| --- | --- |\n%s", flags.String())
		}
	}
	return b.String()
}

// allCommands lists the commands below one, each before those below it, but for
// cobra's own, which is about every shell's ways.
func allCommands(of *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range of.Commands() {
		if cmd.Name() != "completion" {
			all = append(append(all, cmd), allCommands(cmd)...)
		}
	}
	return all
}

// escapeMarkdown keeps what help texts write from being taken for markup.
func escapeMarkdown(text string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*", "_", "\\_").Replace(text)
}
