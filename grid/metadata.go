package grid

import "context"

// Metadata is a small map that travels with a call: trace context
// ("traceparent", "tracestate"), tenant, request id. Keys and values together
// are limited to MaxMetadata bytes.
type Metadata map[string]string

// MaxMetadata bounds the encoded metadata of one call, in bytes.
const MaxMetadata = 4 << 10

type metadataKey struct{}

// WithMetadata gives a context whose calls carry md. It replaces what was
// there; the map must not be changed afterwards.
func WithMetadata(ctx context.Context, md Metadata) context.Context {
	return context.WithValue(ctx, metadataKey{}, md)
}

// MetadataFrom gives the metadata that came with the call a handler serves,
// or that calls made with ctx carry. It must not be changed.
func MetadataFrom(ctx context.Context) Metadata {
	md, _ := ctx.Value(metadataKey{}).(Metadata)
	return md
}

// encodeMetadata gives the encoded metadata of a call; nil without any.
func encodeMetadata(ctx context.Context) ([]byte, error) {
	md := MetadataFrom(ctx)
	if len(md) == 0 {
		return nil, nil
	}
	return encodeMetadataMap(md)
}

type peerKey struct{}

// PeerFrom gives the proven name of the node whose call a handler serves;
// "" outside handlers.
func PeerFrom(ctx context.Context) string {
	name, _ := ctx.Value(peerKey{}).(string)
	return name
}

type handlerKey struct{}

// HandlerFrom gives the id of the handler that serves the call; 0 outside.
func HandlerFrom(ctx context.Context) HandlerID {
	id, _ := ctx.Value(handlerKey{}).(HandlerID)
	return id
}

type noWaitKey struct{}

// NoWait gives a context whose calls fail with ErrOverloaded at once where
// they would wait for room in the session's queue.
func NoWait(ctx context.Context) context.Context {
	return context.WithValue(ctx, noWaitKey{}, true)
}
