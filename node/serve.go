package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/node/door/lean"
)

// StopTimeout is how long a node that has failed may take until Run and Close have
// returned: as long as calls in flight may, and a little.
const StopTimeout = drainTimeout + 2*time.Second

// Failed is closed when the node can't go on: its index has failed, or it is in
// no mesh any more. Run ends then; but where the disk hangs Run and Close may not,
// so that their caller should wait for them no longer than StopTimeout, and end
// the process. Failure says why.
func (n *Node) Failed() <-chan struct{} { return n.control.Done() }

// Failure is why Failed is closed, nil while it isn't.
func (n *Node) Failure() error {
	if err := n.control.Err(); err != nil {
		return fmt.Errorf("the index stopped: %w", err)
	}
	return nil
}

// serveHTTP serves until ctx ends, then lets requests in flight finish.
func serveHTTP(ctx context.Context, s *http.Server, l *listener) error {
	s.TLSConfig = l.tls
	served := make(chan error, 1)
	go func() {
		if l.tls != nil {
			served <- s.ServeTLS(l, "", "")
			return
		}
		served <- s.Serve(l)
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.Shutdown(drain); err != nil {
		_ = s.Close()
	}
	if plain, ok := l.Listener.(*lean.Listener); ok {
		_ = plain.Wait(drain) // it says no more than that there was no more time
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serveGRPC serves until ctx ends, then lets calls in flight finish.
func (n *Node) serveGRPC(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- n.grpcServer.Serve(n.limits.grpc.Wrap(n.grpcListener)) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	n.api.EndWatches() // they don't end by themselves
	stopped := make(chan struct{})
	go func() {
		n.grpcServer.GracefulStop()
		close(stopped)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		n.grpcServer.Stop()
		<-stopped
	}
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
