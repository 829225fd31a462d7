package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gridloom/gridloom/internal/nearest"
	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/observability"
)

// The commands that read settings. Every client command is "client"; "ca" is
// certs ca, which asks no node.
const (
	forServe  = "serve"
	forDev    = "dev"
	forClient = "client"
	forCA     = "ca"
)

// The sources of a setting, the later before the earlier.
type source uint8

const (
	fromDefault source = iota
	fromYAML
	fromEnv
	fromFlag
)

const envPrefix = "GRIDLOOM_"

// setting is a row of the table: one field of config.
type setting struct {
	path  string // in YAML: "http.cert-key"
	node  string // field of node.Config: "HTTP.CertFile"; empty for none
	index []int  // of the field in config
	tag   reflect.StructTag
	group string // "http" for the settings of that listener
}

func (s *setting) flag() string { return strings.ReplaceAll(s.path, ".", "-") }

func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(s.path))
}

func (s *setting) arg() string { return s.tag.Get("arg") }

// help is what the setting means to a command, without formatting.
func (s *setting) help(command string) string {
	text, ok := s.tag.Lookup("help_" + command)
	if !ok {
		text = s.tag.Get("help")
	}
	clients := map[string]string{"grpc": "gRPC clients", "http": "HTTP clients", "peer": "peers"}[s.group]
	return strings.ReplaceAll(text, "{}", clients)
}

// def is the default, as it would be written, for a command.
func (s *setting) def(command string) string {
	for _, key := range []string{"default_" + command, "default_" + s.group, "default"} {
		if d, ok := s.tag.Lookup(key); ok {
			return d
		}
	}
	return ""
}

// from reports whether a command takes the setting from a source; every
// setting it has, it takes from the defaults.
func (s *setting) from(command string, src source) bool {
	for _, in := range strings.Fields(s.tag.Get("in")) {
		name, sources, only := strings.Cut(in, ":")
		if name != command {
			continue
		}
		switch {
		case src == fromDefault:
			return true
		case !only:
			return src != fromYAML || command == forServe
		}
		word := map[source]string{fromFlag: "flag", fromEnv: "env", fromYAML: "yaml"}[src]
		return slices.Contains(strings.Split(sources, "+"), word)
	}
	return false
}

// of reports whether a command has the setting at all.
func (s *setting) of(command string) bool { return s.from(command, fromDefault) }

// table lists every setting in the order of config's fields.
func table() []setting {
	var rows []setting
	var walk func(t reflect.Type, path, node, group string, index []int)
	walk = func(t reflect.Type, path, node, group string, index []int) {
		for i := range t.NumField() {
			f := t.Field(i)
			name, at := f.Tag.Get("cfg"), append(slices.Clone(index), i)
			if path != "" {
				name = path + "." + name
			}
			if f.Type.Kind() == reflect.Struct {
				prefix := ""
				if f.Type == reflect.TypeFor[listenerConfig]() {
					prefix = f.Name + "."
				}
				walk(f.Type, name, prefix, name, at)
				continue
			}
			row := setting{path: name, index: at, tag: f.Tag, group: group}
			if field := f.Tag.Get("node"); field != "" {
				row.node = node + field
			}
			rows = append(rows, row)
		}
	}
	walk(reflect.TypeFor[config](), "", "", "", nil)
	return rows
}

// layer is what one source says: a flag set, for its parsers, over a config.
type layer struct {
	config config
	flags  *pflag.FlagSet
}

// newLayer binds the settings that a command takes from a source.
func newLayer(rows []setting, command string, src source) *layer {
	l := &layer{flags: pflag.NewFlagSet(command, pflag.ContinueOnError)}
	l.flags.SortFlags = false
	for i := range rows {
		if rows[i].from(command, src) {
			l.bind(&rows[i], command)
		}
	}
	return l
}

// bind makes a flag of the setting, with pflag's value for its type, and has
// its default set.
func (l *layer) bind(s *setting, command string) {
	name, usage := s.flag(), s.help(command)
	if arg := s.arg(); arg != "" {
		usage = strings.Replace(usage, arg, "`"+arg+"`", 1) // pflag's mark for the value's name
	}
	switch p := fieldOf(&l.config, s).Addr().Interface().(type) {
	case *string:
		l.flags.StringVar(p, name, "", usage)
	case *bool:
		l.flags.BoolVar(p, name, false, usage)
	case *int:
		l.flags.IntVar(p, name, 0, usage)
	case *time.Duration:
		l.flags.DurationVar(p, name, 0, usage)
	case *[]string:
		l.flags.StringSliceVar(p, name, nil, usage)
	case pflag.Value:
		l.flags.Var(p, name, usage)
	default:
		panic(fmt.Sprintf("config: no parser for %s, a %T", s.path, p)) // the table's test walks every row
	}
	f := l.flags.Lookup(name)
	if def := s.def(command); def != "" {
		if err := f.Value.Set(def); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", s.path, err)) // likewise
		}
	}
	f.DefValue = strings.Trim(f.Value.String(), "[]")
	f.Value = &checked{Value: f.Value, setting: s}
}

func fieldOf(c *config, s *setting) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(s.index)
}

// checked is a flag's value that allows only what the table allows.
type checked struct {
	pflag.Value
	setting *setting
}

// Set parses and then checks a value.
func (c *checked) Set(text string) error {
	if err := c.Value.Set(text); err != nil {
		return plain(err)
	}
	return c.check()
}

// Append adds one element of a list as it is, with no meaning for commas.
func (c *checked) Append(text string) error {
	list, ok := c.Value.(interface{ Append(string) error })
	if !ok {
		return errors.New("takes one value, not a list")
	}
	if err := list.Append(text); err != nil {
		return plain(err)
	}
	return c.check()
}

func (c *checked) check() error {
	if allowed := c.setting.tag.Get("oneof"); allowed != "" {
		values := []string{c.Value.String()}
		if list, ok := c.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			if !slices.Contains(strings.Split(allowed, "|"), v) {
				return fmt.Errorf("is none of %s", strings.ReplaceAll(allowed, "|", ", "))
			}
		}
	}
	if bounds := c.setting.tag.Get("range"); bounds != "" {
		low, high, _ := strings.Cut(bounds, "-")
		from, _ := strconv.Atoi(low) // the table's test reads every range
		to, _ := strconv.Atoi(high)
		if n, err := strconv.Atoi(c.Value.String()); err != nil || n < from || n > to {
			return fmt.Errorf("is not between %d and %d", from, to)
		}
	}
	return nil
}

// plain words the parsers' errors for people, without the value, which the
// one who reports it adds.
func plain(err error) error {
	var num *strconv.NumError
	if errors.As(err, &num) {
		switch {
		case errors.Is(err, strconv.ErrRange):
			return errors.New("is out of range")
		case num.Func == "ParseBool":
			return errors.New("is neither true nor false")
		default:
			return errors.New("is not a number")
		}
	}
	if strings.HasPrefix(err.Error(), "time: ") {
		return errors.New("is not a duration like 30s or 1m30s")
	}
	return err
}

// origin is where a value came from.
type origin struct {
	source source
	line   int // in the YAML file
}

// settings are one command's, from all sources.
type settings struct {
	config  // the outcome, once load has returned
	command string
	rows    []setting
	flags   *layer
	origins map[string]origin // by path; absent for a default

	otel *otel              // OpenTelemetry's variables; servers' alone
	push observability.OTLP // what they and the settings make of it
}

func newSettings(command string) *settings {
	rows := table()
	return &settings{command: command, rows: rows, flags: newLayer(rows, command, fromFlag), origins: map[string]origin{}}
}

// load merges the sources: defaults, the YAML file, variables, flags, the
// later before the earlier. Every value given is parsed, whether or not
// another overrides it. The flags have been parsed before.
func (s *settings) load(env []string) error {
	s.config = newLayer(s.rows, s.command, fromDefault).config
	vars, err := s.readEnv(env)
	if err != nil {
		return err
	}
	s.take(vars, fromEnv) // once before the file too, as they say which it is
	s.take(s.flags, fromFlag)
	if s.ConfigFile != "" {
		file, err := s.readYAML(s.ConfigFile)
		if err != nil {
			return err
		}
		s.take(file, fromYAML)
	}
	s.take(vars, fromEnv)
	s.take(s.flags, fromFlag)
	if s.command == forServe || s.command == forDev {
		s.otel = readOTel(env)
		s.push, err = s.otlp(s.otel)
	}
	return err
}

// take overrides what a layer has set.
func (s *settings) take(l *layer, src source) {
	for i := range s.rows {
		row := &s.rows[i]
		f := l.flags.Lookup(row.flag())
		if f == nil || !f.Changed {
			continue
		}
		fieldOf(&s.config, row).Set(fieldOf(&l.config, row))
		if src != fromYAML { // readYAML has noted the line
			s.origins[row.path] = origin{source: src}
		}
	}
}

// row returns a setting by its path.
func (s *settings) row(path string) *setting {
	for i := range s.rows {
		if s.rows[i].path == path {
			return &s.rows[i]
		}
	}
	return nil
}

// given reports from where a setting was set; fromDefault is from nowhere.
func (s *settings) given(path string) source { return s.origins[path].source }

// blame is a usage error about the value of a setting, in the words its user
// used to set it.
func (s *settings) blame(path string, err error) error { return &usageError{s.about(path, err)} }

// about puts the setting, as it was set, before an error.
func (s *settings) about(path string, err error) error {
	row, from := s.row(path), s.origins[path]
	switch {
	case from.source == fromYAML:
		return fmt.Errorf("%s:%d: %s: %w", s.ConfigFile, from.line, path, err)
	case !row.from(s.command, fromFlag):
		return fmt.Errorf("%s: %w", row.env(), err)
	case from.source == fromEnv:
		return fmt.Errorf("--%s (from %s): %w", row.flag(), row.env(), err)
	}
	return fmt.Errorf("--%s: %w", row.flag(), err)
}

// aboutNode is about for an error of package node that names a field of its
// configuration. Of two settings for that field it names the one that was
// given. Other errors it leaves as they are.
func (s *settings) aboutNode(err error) error {
	var bad *node.ConfigError
	if !errors.As(err, &bad) {
		return err
	}
	var best *setting
	for i := range s.rows {
		row := &s.rows[i]
		if row.node != bad.Field || !row.of(s.command) {
			continue
		}
		if best == nil || s.given(row.path) > s.given(best.path) {
			best = row
		}
	}
	if best == nil {
		return err
	}
	return s.about(best.path, bad.Err)
}

// serviceLink matches the variables that Kubernetes and Docker set in every
// container for a service that happens to be called gridloom or gridloom-x.
var serviceLink = regexp.MustCompile(`^GRIDLOOM_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

func isServiceLink(name, value string) bool {
	if serviceLink.MatchString(name) {
		return true
	}
	scheme, _, ok := strings.Cut(value, "://")
	return ok && strings.HasSuffix(name, "_PORT") && slices.Contains([]string{"tcp", "udp", "sctp"}, scheme)
}

// readEnv parses the GRIDLOOM_ variables. One that no command knows is
// refused, and so is one that only another kind of server has; those of the
// clients may well be set where a server is started, and the other way round.
// An empty variable is one that is not set.
func (s *settings) readEnv(env []string) (*layer, error) {
	l := newLayer(s.rows, s.command, fromEnv)
	known := map[string]*setting{}
	for i := range s.rows {
		known[s.rows[i].env()] = &s.rows[i]
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || isServiceLink(name, value) {
			continue
		}
		row, ok := known[name]
		switch {
		case !ok:
			return nil, usageErrorf("%s: no such setting%s", name, didYouMean(name, known))
		case row.from(s.command, fromEnv):
			if err := l.flags.Set(row.flag(), value); err != nil {
				return nil, s.badValue(row, origin{source: fromEnv}, value, err)
			}
		case s.command != forClient && s.command != forCA && !row.of(forClient):
			return nil, usageErrorf("%s: gridloom %s has no such setting", name, s.command)
		}
	}
	return l, nil
}

// badValue reports a value that could not be parsed, and repeats it where it is
// no secret.
func (s *settings) badValue(row *setting, from origin, value string, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = errors.Unwrap(invalid)
	}
	s.origins[row.path] = from
	if _, secret := row.tag.Lookup("secret"); secret {
		return s.blame(row.path, errors.New("can't be read"))
	}
	return s.blame(row.path, fmt.Errorf("%q %w", value, err))
}

// didYouMean suggests the nearest of the known names, where one is near.
func didYouMean[V any](name string, known map[string]V) string {
	best, changes := nearest.Word(name, slices.Sorted(maps.Keys(known)))
	if best == "" || changes > len(name)/3 {
		return ""
	}
	return "; did you mean " + best + "?"
}
