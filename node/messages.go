package node

import "github.com/gridloom/gridloom/observability"

//go:generate go tool -modfile=../internal/tools/go.mod msgp -file=messages.go -o=messages_gen.go -unexported -tests=false -io=false

//msgp:limit arrays:4096 maps:4096

// resourcesRequest asks a node for its resources.
type resourcesRequest struct{}

// resourcesReply is a node's own resources.
type resourcesReply struct {
	Resources *observability.Resources `msg:"resources"`
}

// watchRequest asks a node for its samples, as they are taken.
type watchRequest struct{}

// watchReply is one of them.
type watchReply struct {
	Resources *observability.Resources `msg:"resources"`
	// Missed is how many were left out before it.
	Missed int64 `msg:"missed"`
}

// probeRequest asks a node to look at its drives and peers.
type probeRequest struct{}

// probeReply is what it found. Times are nanoseconds.
type probeReply struct {
	Version      string              `msg:"version"`
	NotReady     string              `msg:"not_ready"`
	IndexFull    bool                `msg:"index_full"`
	IndexFree    int64               `msg:"index_free"`
	Drives       []driveProbe        `msg:"drives"`
	Peers        []peerProbe         `msg:"peers"`
	Certificates []certificateStatus `msg:"certificates"`
}

// driveProbe is api.DriveProbe.
type driveProbe struct {
	ID    string `msg:"id"`
	Path  string `msg:"path"`
	State uint8  `msg:"state"`
	Took  int64  `msg:"took"`
	Error string `msg:"error"`
}

// peerProbe is api.PeerProbe.
type peerProbe struct {
	Node   string `msg:"node"`
	RTT    int64  `msg:"rtt"`
	Offset int64  `msg:"offset"`
	Error  string `msg:"error"`
}

// clockRequest asks a node for the time.
type clockRequest struct{}

// clockReply is that, in nanoseconds since 1970.
type clockReply struct {
	UnixNano int64 `msg:"unix_nano"`
}

// statusRequest asks a node how it is.
type statusRequest struct{}

// statusReply is how a node is.
type statusReply struct {
	Version string        `msg:"version"`
	Drives  []driveStatus `msg:"drives"`
	Groups  []groupStatus `msg:"groups"` // of the index, as that node sees them
	// NotReady is why the index can't be used from there; "" where it can.
	NotReady string `msg:"not_ready"`
	// IndexFull: the index's disk has no room for what grows, but IndexFree bytes.
	IndexFull bool  `msg:"index_full"`
	IndexFree int64 `msg:"index_free"`
	// Certificates are those that its listeners show.
	Certificates []certificateStatus `msg:"certificates"`
}

// certificateStatus is a certificate of a node. Times are unix seconds.
type certificateStatus struct {
	Listener    string   `msg:"listener"`
	Names       []string `msg:"names"`
	Issuer      string   `msg:"issuer"`
	Fingerprint string   `msg:"fingerprint"`
	NotBefore   int64    `msg:"not_before"`
	NotAfter    int64    `msg:"not_after"`
}

// groupStatus is one group of the index.
type groupStatus struct {
	Name    string         `msg:"name"`
	Leader  string         `msg:"leader"`
	Leads   bool           `msg:"leads"` // the node that says so does
	Term    uint64         `msg:"term"`
	Commit  uint64         `msg:"commit"`
	Applied uint64         `msg:"applied"`
	Members []memberStatus `msg:"members"`
}

// memberStatus is a node's part in a group.
type memberStatus struct {
	Node  string `msg:"node"`
	Role  string `msg:"role"`
	Match uint64 `msg:"match"`
	Lag   uint64 `msg:"lag"`
	Known bool   `msg:"known"` // Match and Lag are
}

// driveStatus is one drive of a node. Sizes are in bytes.
type driveStatus struct {
	ID    string `msg:"id"`
	Path  string `msg:"path"`
	State uint8  `msg:"state"`
	Total int64  `msg:"total"`
	Used  int64  `msg:"used"`
	Free  int64  `msg:"free"`
	// Error is why the node can't use the drive at this path. The id may then be
	// "", where none was ever known.
	Error string `msg:"error,omitempty"`
}
