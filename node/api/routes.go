package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// route is one HTTP method and path of the gateway, as the google.api.http
// option of a gRPC method has it.
type route struct {
	method   string // HTTP
	template string // "/v1/buckets/{bucket}/objects:copy"
	segments []string
	verb     string // "copy"

	fullMethod string // gRPC: "/gridloom.v1.ObjectService/CopyObject"
	api        string // "CopyObject"
	input      protoreflect.MessageDescriptor
	body       bool // the request is in the body; else in the path and the query
	stream     bool // the answer is a stream, which has no end: there is no HEAD of it
}

// routesOf reads the routes of a service's methods from its descriptor.
func routesOf(desc *grpc.ServiceDesc) ([]route, error) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
	if err != nil {
		return nil, fmt.Errorf("api: service %s: %w", desc.ServiceName, err)
	}
	methods := found.(protoreflect.ServiceDescriptor).Methods()
	var routes []route
	for i := range methods.Len() {
		m := methods.Get(i)
		rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if !ok || rule == nil {
			continue // it has no JSON form
		}
		r := route{
			fullMethod: "/" + desc.ServiceName + "/" + string(m.Name()),
			api:        string(m.Name()),
			input:      m.Input(),
			body:       rule.GetBody() != "",
			stream:     m.IsStreamingServer(),
		}
		switch pattern := rule.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			r.method, r.template = http.MethodGet, pattern.Get
		case *annotations.HttpRule_Post:
			r.method, r.template = http.MethodPost, pattern.Post
		case *annotations.HttpRule_Put:
			r.method, r.template = http.MethodPut, pattern.Put
		case *annotations.HttpRule_Delete:
			r.method, r.template = http.MethodDelete, pattern.Delete
		default:
			return nil, fmt.Errorf("api: %s has an HTTP rule of an unknown form", r.fullMethod)
		}
		path, verb, _ := strings.Cut(r.template, ":")
		r.segments, r.verb = strings.Split(path, "/"), verb
		routes = append(routes, r)
	}
	return routes, nil
}

// matches says whether path is one of the route's. Variables are one segment.
func (r *route) matches(path string) bool {
	path, verb, _ := strings.Cut(path, ":")
	segments := strings.Split(path, "/")
	return verb == r.verb && slices.EqualFunc(r.segments, segments, func(want, got string) bool {
		if strings.HasPrefix(want, "{") {
			return got != ""
		}
		return want == got
	})
}

// inPath says whether a field of the request is taken from the path.
func (r *route) inPath(field protoreflect.FieldDescriptor) bool {
	return slices.Contains(r.segments, "{"+string(field.Name())+"}")
}

// parameter finds the field that a query parameter names, "conditions.ifMatch"
// for instance: by its name in JSON or in the .proto file, like in a body.
func (r *route) parameter(name string) (protoreflect.FieldDescriptor, bool) {
	message := r.input
	parts := strings.Split(name, ".")
	for i, part := range parts {
		field := message.Fields().ByJSONName(part)
		if field == nil {
			field = message.Fields().ByTextName(part)
		}
		switch {
		case field == nil:
			return nil, false
		case i == len(parts)-1:
			return field, !r.inPath(field)
		case field.Message() == nil || field.Cardinality() == protoreflect.Repeated:
			return nil, false
		}
		message = field.Message()
	}
	return nil, false
}

// findRoute returns the route of a request, or else the HTTP methods that its
// path has.
func findRoute(routes []route, method, path string) (found *route, allowed []string) {
	for i := range routes {
		r := &routes[i]
		if !r.matches(path) {
			continue
		}
		head := r.method == http.MethodGet && !r.stream
		if r.method == method || head && method == http.MethodHead {
			return r, nil
		}
		allowed = append(allowed, r.method)
		if head {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	return nil, allowed
}
