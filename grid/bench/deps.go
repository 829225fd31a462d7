package main

import (
	_ "github.com/containerd/ttrpc"
	_ "github.com/gridloom/gridloom/grid"
	_ "github.com/hashicorp/yamux"
	_ "github.com/nats-io/nats-server/v2/server"
	_ "github.com/nats-io/nats.go"
	_ "google.golang.org/grpc"
	_ "storj.io/drpc"
)

func main() {}
