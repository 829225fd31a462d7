package fault

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Problem is the body of an HTTP error, RFC 9457.
type Problem struct {
	Type    string `json:"type"`   // "urn:gridloom:error:" and the reason
	Title   string `json:"title"`  // the reason
	Status  int    `json:"status"` // the HTTP status
	Detail  string `json:"detail"`
	Subject string `json:"subject,omitempty"` // the field or thing it is about
}

// ReasonHeader is the field of an error's answer that has its reason.
const ReasonHeader = "Gridloom-Error"

// WriteProblem answers a request with err as problem+json. A 304 has no body
// (RFC 9110, 15.4.5); waits carry Retry-After. HEAD bodies are net/http's to
// drop: the header has the reason, too. It must be called before anything else
// was written.
func WriteProblem(w http.ResponseWriter, err error) {
	fe := From(err)
	status := fe.Kind.Status()
	h := w.Header()
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	// What was prepared for a body of bytes doesn't describe this one.
	for _, k := range []string{"Content-Length", "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control", "Etag", "Last-Modified", "Repr-Digest"} {
		h.Del(k)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set(ReasonHeader, fe.Kind.Reason())
	h.Set("Cache-Control", "no-store") // what isn't there now may be in a moment
	if d := fe.RetryAfter(); d > 0 {
		h.Set("Retry-After", strconv.Itoa(int((d+time.Second-1)/time.Second)))
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="gridloom"`)
	}
	body, _ := json.Marshal(Problem{ // of strings and a number: it can't fail
		Type:    "urn:gridloom:error:" + fe.Kind.Reason(),
		Title:   fe.Kind.Reason(),
		Status:  status,
		Detail:  fe.Error(),
		Subject: fe.Subject,
	})
	body = append(body, '\n')
	h.Set("Content-Length", strconv.Itoa(len(body))) // whole, however soon it is flushed
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// RefuseMethod answers 405, which must say what is allowed (RFC 9110, 15.5.6).
func RefuseMethod(w http.ResponseWriter, method string, allowed ...string) {
	allow := strings.Join(allowed, ", ")
	w.Header().Set("Allow", allow)
	WriteProblem(w, New(MethodNotAllowed, "method", "%s has no meaning here; allowed: %s", method, allow))
}

// RetryAfter is when to try again: Retry, or 1 s for the kinds that pass by
// themselves, or 0.
func (e *Error) RetryAfter() time.Duration {
	if e.Retry > 0 {
		return e.Retry
	}
	switch e.Kind {
	case Waiting, Unavailable, Overloaded:
		return time.Second
	}
	return 0
}
