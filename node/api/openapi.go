package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/gridloom/gridloom/gen"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// OpenAPI serves the OpenAPI description of the gateway.
func OpenAPI() http.Handler {
	sum := sha256.Sum256([]byte(gen.OpenAPI()))
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		observability.SetAPI(r.Context(), "GetOpenAPI")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fault.RefuseMethod(w, r.Method, http.MethodGet, http.MethodHead)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", etag)
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(gen.OpenAPI()))
	})
}
