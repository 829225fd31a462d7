package node

//go:generate go tool -modfile=../internal/tools/go.mod msgp -file=diagnosewire.go -o=diagnosewire_gen.go -unexported -tests=false -io=false

import "github.com/gridloom/gridloom/grid"

// What the nodes show each other of what they are doing.
var (
	callsStream = grid.NewStreamOf[callsOpening, nothing, shownCall](320, "telemetry.calls")
	logsStream  = grid.NewStreamOf[logsOpening, nothing, shownLine](321, "telemetry.logs")
)

// shownAhead is how many messages of such a stream may be on their way.
const shownAhead = 256

//msgp:limit arrays:64 maps:0

// nothing is what goes the other way.
type nothing struct{}

// callsOpening asks for the calls that end at a node: those that fit all.
type callsOpening struct {
	APIs          []string `msg:"a"`
	Statuses      []string `msg:"s"`
	MinDurationNS int64    `msg:"m"`
}

// shownCall is a call. The first has none and says that those from now on come,
// and so have those that say how many were lost.
type shownCall struct {
	Has      bool   `msg:"h"`
	API      string `msg:"a"`
	Proto    string `msg:"p"`
	Method   string `msg:"m"`
	StartNS  int64  `msg:"s"` // unix
	TTFBNS   int64  `msg:"f"`
	TookNS   int64  `msg:"d"`
	Status   string `msg:"c"`
	Class    string `msg:"l"`
	Kind     string `msg:"e"`
	Received int64  `msg:"r"`
	Sent     int64  `msg:"w"`
	Bucket   string `msg:"b"`
	Key      string `msg:"k"`
	User     string `msg:"u"`
	TraceID  string `msg:"t"`
	Dropped  int64  `msg:"n"` // so far
}

// logsOpening asks for lines of a node's log.
type logsOpening struct {
	Level  int  `msg:"l"`
	Tail   int  `msg:"t"`
	Follow bool `msg:"f"`
}

// shownLine is a line, as shownCall is a call.
type shownLine struct {
	Has     bool        `msg:"h"`
	TimeNS  int64       `msg:"s"` // unix
	Level   int         `msg:"l"`
	Message string      `msg:"m"`
	Attrs   []shownWord `msg:"a"`
	Dropped int64       `msg:"n"`
}

// shownWord is a name and its value.
type shownWord struct {
	Name  string `msg:"n"`
	Value string `msg:"v"`
}
