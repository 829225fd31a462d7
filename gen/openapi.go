// Package gen holds what is generated from proto/: the Go messages, gRPC
// services and JSON gateway in gen/gridloom/v1, and the OpenAPI description of
// the gateway here. This file and gridloom/v1/api.go are written by hand; `make
// generate` makes the rest, and CI checks that it changes nothing.
package gen

import _ "embed"

//go:embed gridloom.swagger.json
var openAPI string

// OpenAPI is the OpenAPI 2 description of the JSON API below /v1.
func OpenAPI() string { return openAPI }
