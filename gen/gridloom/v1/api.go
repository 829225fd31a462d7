// Package gridloomv1 is the API of a Gridloom node, generated from
// proto/gridloom/v1: messages, gRPC clients and servers, and the handlers of
// the JSON gateway. Its documentation is that of the .proto files.
//
// Only the server (node/api) and the command line (cmd/gridloom) import it.
package gridloomv1
