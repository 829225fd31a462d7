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

// statusRequest asks a node how it is.
type statusRequest struct{}

// statusReply is how a node is.
type statusReply struct {
	Version string        `msg:"version"`
	Drives  []driveStatus `msg:"drives"`
}

// driveStatus is one drive of a node. Sizes are in bytes.
type driveStatus struct {
	ID    string `msg:"id"`
	Path  string `msg:"path"`
	State uint8  `msg:"state"`
	Total int64  `msg:"total"`
	Used  int64  `msg:"used"`
	Free  int64  `msg:"free"`
}
