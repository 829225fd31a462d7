package node

import "net/http"

// trailers lets handlers see a trailer that its request has not announced, as it
// need not (RFC 9110, 6.6.2): a checksum in it is one that somebody wants
// verified. net/http makes the map for it, when it has come, in its own request,
// and handlers further in have copies of that.
func trailers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Trailer == nil && len(r.TransferEncoding) > 0 {
			r.Trailer = http.Header{}
		}
		next.ServeHTTP(w, r)
	})
}
