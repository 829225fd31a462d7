package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxConfigBytes bounds the file that --config may name.
const maxConfigBytes = 1 << 20

// readYAML reads the settings file. It is strict: what it does not know, or
// finds twice, is an error with the line it is on.
func (s *settings) readYAML(name string) (*layer, error) {
	data, err := readBounded(name, maxConfigBytes)
	if err != nil {
		return nil, s.blame("config", err)
	}
	r := &yamlReader{settings: s, name: name, layer: newLayer(s.rows, s.command, fromYAML), known: map[string]*setting{}}
	for i := range s.rows {
		if row := &s.rows[i]; row.from(s.command, fromYAML) {
			r.known[row.path] = row
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return r.layer, nil // nothing but comments
	case err != nil:
		return nil, usageErrorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := r.mapping(doc.Content[0], ""); err != nil {
		return nil, err
	}
	if err := dec.Decode(&doc); !errors.Is(err, io.EOF) {
		return nil, usageErrorf("%s: holds more than one YAML document", name)
	}
	return r.layer, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %s", name, byteSize(limit))
	}
	return data, nil
}

// yamlReader walks the nodes of one file into a layer.
type yamlReader struct {
	settings *settings
	name     string
	layer    *layer
	known    map[string]*setting
}

func (r *yamlReader) errorf(n *yaml.Node, format string, args ...any) error {
	return usageErrorf("%s:%d: %w", r.name, n.Line, fmt.Errorf(format, args...))
}

// mapping reads the settings below a path. The nesting is no deeper than the
// table's, as every key must be on the way to a setting.
func (r *yamlReader) mapping(n *yaml.Node, path string) error {
	if n.Kind != yaml.MappingNode {
		if path == "" {
			return r.errorf(n, "want settings, one a line as name: value")
		}
		return r.errorf(n, "%s: want settings below it, not a value", path)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return r.errorf(key, "want the name of a setting")
		}
		at := key.Value
		if path != "" {
			at = path + "." + at
		}
		if line, twice := seen[at]; twice {
			return r.errorf(key, "%s: set twice, first on line %d", at, line)
		}
		seen[at] = key.Line
		if err := r.entry(key, value, at); err != nil {
			return err
		}
	}
	return nil
}

// entry reads what stands at a path: a setting, or settings below it.
func (r *yamlReader) entry(key, value *yaml.Node, at string) error {
	if row, ok := r.known[at]; ok {
		r.settings.origins[at] = origin{source: fromYAML, line: key.Line}
		return r.value(row, value)
	}
	for path := range r.known {
		if strings.HasPrefix(path, at+".") {
			return r.mapping(value, at)
		}
	}
	return r.errorf(key, "%s: no such setting%s", at, didYouMean(at, r.known))
}

// value hands a node's text to the setting's own parser, as flags and
// variables do; what YAML takes it for plays no part.
func (r *yamlReader) value(row *setting, n *yaml.Node) error {
	flag := r.layer.flags.Lookup(row.flag())
	list, _ := flag.Value.(*checked)
	add := func(n *yaml.Node, set func(string) error, text string) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return r.errorf(n, "%s: want a value", row.path)
		}
		if err := set(text); err != nil {
			return r.settings.badValue(row, origin{source: fromYAML, line: n.Line}, text, err)
		}
		flag.Changed = true
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if err := add(item, list.Append, item.Value); err != nil {
				return err
			}
		}
		return nil
	case yaml.MappingNode:
		if _, ok := list.Value.(*peerList); !ok {
			return r.errorf(n, "%s: want a value, not settings below it", row.path)
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := add(n.Content[i+1], list.Append, n.Content[i].Value+"="+n.Content[i+1].Value); err != nil {
				return err
			}
		}
		return nil
	}
	return add(n, list.Set, n.Value)
}
