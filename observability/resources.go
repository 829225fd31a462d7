package observability

//go:generate go tool -modfile=../internal/tools/go.mod msgp -file=resources.go -o=resources_gen.go -tests=false -io=false

//msgp:limit arrays:4096 maps:64

// Resources are one node's drives, network interfaces, CPU and memory at one
// moment. The collector publishes a new one with every sample and never
// touches it again, so that it may be read, sent and formatted by many at
// once; readers must not change it. The fields are those of NodeResources in
// proto/gridloom/v1/metrics.proto.
//
// The encoding is a msgpack map with the names below; a reader skips names it
// doesn't know, so fields may be added.
type Resources struct {
	Node string `msg:"node"`
	// Up is false for a node that didn't answer; Error says why, and the
	// rest is empty.
	Up    bool   `msg:"up"`
	Error string `msg:"error"`
	// SampledAtUnixNano is when the last sample was taken, by the node's
	// clock; 0 before the first.
	SampledAtUnixNano int64     `msg:"sampled_at"`
	Drives            []Drive   `msg:"drives"`
	Networks          []Network `msg:"networks"`
	CPU               CPU       `msg:"cpu"`
	Memory            Memory    `msg:"memory"`
	// Cores are the logical CPUs by their numbers, 256 at most.
	Cores []Core `msg:"cores"`
	// Mesh is the traffic with the other nodes, by the way it takes.
	Mesh []MeshTraffic `msg:"mesh"`
	// Peers are the connections of the grid, by the other nodes' names.
	Peers []Peer `msg:"peers"`
	// APIs are those that had a request within the last ten seconds.
	APIs []APICalls `msg:"apis"`
}

// Gauge is a value over time. Average and Maximum are those of the samples
// since the collector's start, folded in minute by minute, AverageHour and
// MaximumHour those of the last sixty minutes folded; while none of these has a
// sample, as before the first is over, all are of the samples so far. All are 0 before the first sample; a
// rate or ratio has that with the second reading.
type Gauge struct {
	Current     float64 `msg:"c"`
	Average     float64 `msg:"a"`
	Maximum     float64 `msg:"m"`
	AverageHour float64 `msg:"ah"`
	MaximumHour float64 `msg:"mh"`
}

// Drive is a drive's current values. The node tells the fields up to
// FreeInodes, Errors and Timeouts (DriveSource); the collector adds the rates
// of the block device below. From TotalBytes to FreeInodes they are of the
// drive's last answer, and zero before the first.
type Drive struct {
	ID   string `msg:"id"`
	Path string `msg:"path"`
	// State is "online", "degraded", "read_only", "suspect" or "offline".
	State       string `msg:"state"`
	TotalBytes  int64  `msg:"total_bytes"`
	UsedBytes   int64  `msg:"used_bytes"`
	FreeBytes   int64  `msg:"free_bytes"`
	TotalInodes int64  `msg:"total_inodes"`
	UsedInodes  int64  `msg:"used_inodes"`
	FreeInodes  int64  `msg:"free_inodes"`

	// Device is the block device that holds Path, as the operating system
	// calls it ("sda1", "nvme0n1p2"); empty where there is none (tmpfs, a
	// network share) or it is not known, and then the rates are 0.
	Device                string  `msg:"device"`
	ReadsPerSecond        float64 `msg:"reads"`
	WritesPerSecond       float64 `msg:"writes"`
	ReadBytesPerSecond    float64 `msg:"read_bytes"`
	WrittenBytesPerSecond float64 `msg:"written_bytes"`
	// AwaitSeconds is the mean time of the requests that ended within the
	// sample, queueing included.
	AwaitSeconds float64 `msg:"await"`
	// UtilizationRatio is the share of the time in which the device had
	// work, 0 to 1. A device that serves many requests at once may have
	// room left at 1.
	UtilizationRatio float64 `msg:"utilization"`
	// Errors of reads and writes since the node's start.
	Errors int64 `msg:"errors"`
	// Timeouts are operations since the node's start that took, or are
	// taking, longer than a healthy drive may.
	Timeouts int64 `msg:"timeouts"`
}

// Healthy says that the drive can be used for everything, and isn't slow.
func (d *Drive) Healthy() bool { return d.State == "online" }

// Network is the rates of one interface, a second.
type Network struct {
	Interface       string `msg:"interface"`
	ReceivedBytes   Gauge  `msg:"received_bytes"`
	SentBytes       Gauge  `msg:"sent_bytes"`
	ReceivedPackets Gauge  `msg:"received_packets"`
	SentPackets     Gauge  `msg:"sent_packets"`
	// Errors and Drops are of both directions together.
	Errors Gauge `msg:"errors"`
	Drops  Gauge `msg:"drops"`
}

// Values of MeshTraffic.Via.
const (
	ViaGrid = "grid" // the connections that carry calls
	ViaBulk = "bulk" // the bulk port, which carries payload
)

// MeshTraffic is payload and messages exchanged with the other nodes, in bytes
// a second, without what TLS and TCP add.
type MeshTraffic struct {
	Via           string `msg:"via"`
	ReceivedBytes Gauge  `msg:"received_bytes"`
	SentBytes     Gauge  `msg:"sent_bytes"`
}

// Peer is the connection with another node. Rates are a second.
type Peer struct {
	Node                      string  `msg:"node"`
	Up                        bool    `msg:"up"`
	RTTSeconds                float64 `msg:"rtt"` // of the last ping; 0: there was none yet
	ReceivedBytesPerSecond    float64 `msg:"received_bytes"`
	SentBytesPerSecond        float64 `msg:"sent_bytes"`
	ReceivedMessagesPerSecond float64 `msg:"received_messages"`
	SentMessagesPerSecond     float64 `msg:"sent_messages"`
	QueuedBytes               int64   `msg:"queued_bytes"` // waiting to be written
	CallsOut                  int64   `msg:"calls_out"`    // this node's, in flight
	CallsIn                   int64   `msg:"calls_in"`     // the peer's, being served
	Sessions                  int64   `msg:"sessions"`     // since the node's start; one more than reconnects
}

// APICalls are the requests of one API by one protocol. Those a second are of the
// last sample; the times to first byte are of the last ten seconds, and at most
// a quarter off.
type APICalls struct {
	Name                  string  `msg:"name"`
	Proto                 string  `msg:"proto"` // "http" or "grpc"
	RequestsPerSecond     float64 `msg:"requests"`
	ClientErrorsPerSecond float64 `msg:"client_errors"` // classes 4xx
	ServerErrorsPerSecond float64 `msg:"server_errors"` // and 5xx
	TTFBP50Seconds        float64 `msg:"ttfb_p50"`
	TTFBP99Seconds        float64 `msg:"ttfb_p99"`
}

// Core is one logical CPU, by the number that the operating system gives it.
type Core struct {
	Core      int32 `msg:"core"`
	BusyRatio Gauge `msg:"busy"`
}

// CPU is shares of the host's CPU time over all cores, each 0 to 1, and the
// load averages. User, system, idle, iowait and steal add up to 1.
type CPU struct {
	// Cores is the number of logical CPUs.
	Cores int32 `msg:"cores"`
	// BusyRatio is all that is neither idle nor iowait.
	BusyRatio Gauge `msg:"busy"`
	// UserRatio includes nice, SystemRatio interrupts.
	UserRatio   Gauge `msg:"user"`
	SystemRatio Gauge `msg:"system"`
	IdleRatio   Gauge `msg:"idle"`
	IowaitRatio Gauge `msg:"iowait"`
	StealRatio  Gauge `msg:"steal"`
	// Load1, Load5 and Load15 are 0 on Windows, which has no such thing.
	Load1  Gauge `msg:"load1"`
	Load5  Gauge `msg:"load5"`
	Load15 Gauge `msg:"load15"`
}

// Memory is in bytes. What an operating system doesn't tell is 0.
type Memory struct {
	Total     Gauge `msg:"total"`
	Used      Gauge `msg:"used"`
	Free      Gauge `msg:"free"`
	Available Gauge `msg:"available"`
	Buffers   Gauge `msg:"buffers"`
	Cache     Gauge `msg:"cache"`
	SwapTotal Gauge `msg:"swap_total"`
	SwapUsed  Gauge `msg:"swap_used"`
	// ProcessResident is the resident set of this process.
	ProcessResident Gauge `msg:"process_resident"`
	// ProcessHeap is the heap of the Go runtime: live objects and those not
	// yet swept.
	ProcessHeap Gauge `msg:"process_heap"`
}

// Down returns the Resources of a node that did not answer, and why.
func Down(node string, why error) *Resources {
	r := &Resources{Node: node}
	if why != nil {
		r.Error = why.Error()
	}
	return r
}
