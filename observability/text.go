package observability

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ContentType is that of WriteResources' output.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// WriteResources writes the resources of nodes in the Prometheus text format
// 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format),
// each metric once, with all nodes below it. gridloom_node_up is always
// there; subsystems select the rest, none: all. Each node is to be there
// once. An unknown subsystem is an error, and nothing is written.
func WriteResources(w io.Writer, subsystems []string, rs []*Resources) error {
	if err := CheckSubsystems(subsystems); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, f := range textFamilies() {
		if f.subsystem != "" && len(subsystems) > 0 && !slices.Contains(subsystems, f.subsystem) {
			continue
		}
		for _, s := range f.statistics() {
			f.write(&b, s, rs)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// write writes one metric, or nothing where no node has a value.
func (f *family) write(b *bytes.Buffer, s statistic, rs []*Resources) {
	name := f.name + s.suffix
	headed := false
	for _, r := range rs {
		f.values(r, func(g Gauge, labels ...label) {
			if !headed {
				headed = true
				kind := "gauge"
				if f.counter {
					kind = "counter"
				}
				b.WriteString("# HELP " + name + " " + f.help + s.help + "\n# TYPE " + name + " " + kind + "\n")
			}
			b.WriteString(name)
			b.WriteByte('{')
			writeLabel(b, label{"node", r.Node})
			for _, l := range labels {
				b.WriteByte(',')
				writeLabel(b, l)
			}
			b.WriteString("} ")
			b.Write(strconv.AppendFloat(b.AvailableBuffer(), s.of(g), 'g', -1, 64))
			b.WriteByte('\n')
		})
	}
}

// escaper is for label values, which are UTF-8 with three escapes.
var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func writeLabel(b *bytes.Buffer, l label) {
	b.WriteString(l.name)
	b.WriteString(`="`)
	b.WriteString(escaper.Replace(strings.ToValidUTF8(l.value, "\uFFFD")))
	b.WriteByte('"')
}
