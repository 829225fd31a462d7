package node

import (
	"net/http"
	"strings"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
	"github.com/gridloom/gridloom/observability"
)

// metricsPath serves all of this node's metrics, and below it the groups.
const metricsPath = "/v3/metrics"

// isMetrics says of a path that it is for serveMetrics.
func isMetrics(path string) bool {
	return path == "/metrics" || path == metricsPath || strings.HasPrefix(path, metricsPath+"/")
}

// serveMetrics is /metrics and /v3/metrics, which are the same, and
// /v3/metrics/{group}: of this node alone, so that a scraper that asks every
// node has each series once.
func serveMetrics(t *observability.Telemetry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		observability.SetAPI(r.Context(), "GetMetrics")
		h := t.MetricsHandler()
		if group, ok := strings.CutPrefix(r.URL.EscapedPath(), metricsPath+"/"); ok {
			if h = t.GroupHandler(group); h == nil {
				fault.WriteProblem(w, fault.New(fault.NotFound, r.URL.EscapedPath(),
					"there is no such group of metrics; there are %s", strings.Join(observability.Groups(), ", ")))
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// readsMetrics lets next have the requests of those who may see metrics.
func readsMetrics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fault.RefuseMethod(w, r.Method, http.MethodGet, http.MethodHead)
			return
		}
		p, _ := iam.FromContext(r.Context())
		if err := iam.Authorize(p, iam.MetricsRead, "", ""); err != nil {
			observability.SetAPI(r.Context(), "GetMetrics")
			fault.WriteProblem(w, fault.Wrap(fault.PermissionDenied, "", err))
			return
		}
		next.ServeHTTP(w, r)
	})
}
