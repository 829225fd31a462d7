package api

import (
	"slices"
	"strings"

	"github.com/gridloom/gridloom/internal/nearest"
	"github.com/gridloom/gridloom/node/fault"
)

// httpAPIs are the APIs of the HTTP listener that are no call: how requests count
// that are for something else, or that never came as far as an API.
var httpAPIs = []string{
	"GetMetrics", "GetOpenAPI", "Profile", "Live", "Ready", "Preflight", "Unauthenticated", "Limited", "other",
}

// Names are the APIs that a request can be measured as, by HTTP or gRPC.
func Names() []string {
	names := slices.Clone(httpAPIs)
	for method := range permissions() {
		names = append(names, apiOf(method))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkAPIs refuses a name that no call will ever have: who filters by it would wait
// for nothing. What an older node has besides can't be asked for by way of this one.
func checkAPIs(names []string) error {
	known := Names()
	for _, name := range names {
		if !slices.Contains(known, name) {
			best, _ := nearest.Word(name, known)
			return fault.New(fault.InvalidArgument, "api", "%q is no API; the nearest is %s. There are the calls by their names, and by HTTP %s",
				name, best, strings.Join(httpAPIs, ", "))
		}
	}
	return nil
}
