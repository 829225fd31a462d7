package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node"
)

// The connection's numbers. A stream's window bounds what a node may send
// before this side has read it, and with it the throughput over a long line:
// 8 MiB are 800 MiB/s at 10 ms. The connection's window is what all streams
// together may have in flight, which is also the memory they can take here.
const (
	streamWindow      = 8 << 20
	connectionWindow  = 32 << 20
	bufferBytes       = 256 << 10
	chunkBytes        = 1 << 20 // of an upload's messages; the nodes take up to 4 MiB
	dialTimeout       = 10 * time.Second
	completionTimeout = 2 * time.Second
	keepaliveTime     = 30 * time.Second // the nodes allow 20 s
	keepaliveTimeout  = 10 * time.Second
)

// client is a connection to one node.
type client struct {
	conn     *grpc.ClientConn
	buckets  gridloomv1.BucketServiceClient
	objects  gridloomv1.ObjectServiceClient
	cluster  gridloomv1.ClusterServiceClient
	storage  gridloomv1.StorageServiceClient
	iam      gridloomv1.IAMServiceClient
	metrics  gridloomv1.MetricsServiceClient
	who      login
	endpoint string
	tls      bool
	timeout  time.Duration

	mu      sync.Mutex
	dialErr error // the last reason why there is no connection
}

// clientCommand completes a client command: its settings, its connection.
func (a *app) clientCommand(cmd *cobra.Command, run func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error) *cobra.Command {
	s := newSettings(forClient)
	cmd.GroupID = "client"
	cmd.Flags().AddFlagSet(s.flags.flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.load(a.env); err != nil {
			return err
		}
		c, err := dial(s)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		err = c.explain(run(cmd.Context(), c, cmd, args))
		if err != nil && cmd.Context().Err() != nil {
			return errInterrupted // whatever that broke
		}
		return err
	}
	cmd.ValidArgsFunction = a.completeArgs(s)
	return cmd
}

// dial prepares the connection; the first call makes it.
func dial(s *settings) (*client, error) {
	host, _, err := net.SplitHostPort(s.Endpoint)
	if err != nil {
		return nil, s.blame("endpoint", fmt.Errorf("%q is not HOST:PORT", s.Endpoint))
	}
	if s.Timeout < 0 {
		return nil, s.blame("timeout", fmt.Errorf("%s is negative", s.Timeout))
	}
	who, ok, err := s.readLogin()
	if err != nil {
		return nil, err
	}
	if !ok && s.Data != "" {
		switch kept, err := readCredentials(s.Data, readBounded); {
		case err == nil:
			who, ok = login{key: kept.key}, true
		case !errors.Is(err, fs.ErrNotExist): // of a mesh there is none
			return nil, s.blame("data", err)
		}
	}
	if !ok {
		return nil, usageErrorf("no key: give --key-file, or set GRIDLOOM_KEY (gridloom dev prints it; gridloom serve keeps it in its data directory, in the file credentials: --data)")
	}
	conf, err := s.clientTLS(host)
	if err != nil {
		return nil, err
	}
	c, err := connect(s.Endpoint, who, conf, s.Timeout)
	if err != nil {
		return nil, s.blame("endpoint", err)
	}
	return c, nil
}

// connect makes a client of the node at endpoint; conf nil is plaintext.
func connect(endpoint string, who login, conf *tls.Config, timeout time.Duration) (*client, error) {
	transport := insecure.NewCredentials()
	if conf != nil {
		transport = grpccredentials.NewTLS(conf)
	}
	c := &client{who: who, endpoint: endpoint, tls: conf != nil, timeout: timeout}
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer{who, conf != nil}),
		grpc.WithContextDialer(c.dialNode),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("gridloom/"+programVersion()),
	)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	c.buckets = gridloomv1.NewBucketServiceClient(c.conn)
	c.objects = gridloomv1.NewObjectServiceClient(c.conn)
	c.cluster = gridloomv1.NewClusterServiceClient(c.conn)
	c.storage = gridloomv1.NewStorageServiceClient(c.conn)
	c.iam = gridloomv1.NewIAMServiceClient(c.conn)
	c.metrics = gridloomv1.NewMetricsServiceClient(c.conn)
	return c, nil
}

// authorities is the file of those that are to be trusted, "" for the system's,
// and the setting that says so: --ca, or the data directory of a node here which
// has an authority of its mesh's.
func (s *settings) authorities() (file, setting string) {
	if s.CA == "" && s.Data != "" && there(node.CAFile(s.Data)) {
		return node.CAFile(s.Data), "data"
	}
	return s.CA, "ca"
}

// clientTLS is nil for plaintext, which is for loopback, and for those who ask
// for it: the key goes with every call.
func (s *settings) clientTLS(host string) (*tls.Config, error) {
	if s.Plaintext {
		if s.CA != "" || s.Cert != "" {
			return nil, s.blame("plaintext", errors.New("contradicts --ca and --cert, which are for TLS"))
		}
		return nil, nil
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	ca, setting := s.authorities()
	if loopback && ca == "" && s.Cert == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := readBounded(ca, maxConfigBytes)
		if err != nil {
			return nil, s.blame(setting, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, s.blame(setting, fmt.Errorf("%s holds no certificate in PEM form", ca))
		}
	}
	switch {
	case (s.Cert == "") != (s.CertKey == ""):
		return nil, s.blame("cert", errors.New("--cert and --cert-key are given together or not at all"))
	case s.Cert != "":
		cert, err := tls.LoadX509KeyPair(s.Cert, s.CertKey)
		if err != nil {
			return nil, s.blame("cert", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// bearer sends the key or token with every call.
type bearer struct {
	who login
	tls bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.who.bearer()}, nil
}

// RequireTransportSecurity has gRPC refuse to send the key in the clear where
// TLS was asked for.
func (b bearer) RequireTransportSecurity() bool { return b.tls }

// dialNode remembers why it could not, which gRPC's own errors wrap in much
// that is of no use to the reader.
func (c *client) dialNode(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialErr = err
	return conn, err
}

// explain puts an error that came from no node but from the way to it into
// words. Others are left as they are.
func (c *client) explain(err error) error {
	st, ok := rpcStatus(err)
	if !ok || nodeReason(st) != "" {
		return err
	}
	if st.Code() == codes.DeadlineExceeded {
		return &silentError{fmt.Sprintf("the node at %s has not answered within %s (--timeout)", c.endpoint, c.timeout)}
	}
	if st.Code() != codes.Unavailable {
		return err
	}
	c.mu.Lock()
	dialErr := c.dialErr
	c.mu.Unlock()
	if dialErr != nil {
		return &noConnectionError{fmt.Errorf("no connection to the node at %s: %w", c.endpoint, dialErr)}
	}
	hint := "the node may want TLS: --ca, or --data for one on this machine"
	if c.tls {
		hint = "TLS is used, as --ca or --data says so or the endpoint is off loopback; --plaintext goes without"
	}
	return &noConnectionError{fmt.Errorf("the connection to the node at %s failed (%s): %s", c.endpoint, hint, st.Message())}
}

// noConnectionError is an error on the way to the node: it has answered
// nothing.
type noConnectionError struct{ err error }

func (e *noConnectionError) Error() string { return e.err.Error() }
func (e *noConnectionError) Unwrap() error { return e.err }

// silentError is a node that has taken too long.
type silentError struct{ what string }

func (e *silentError) Error() string { return e.what }

// call bounds one call that moves no bytes.
func (c *client) call(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// watchdog ends a transfer that has not moved for too long. It is awake only
// while a node is being waited for, so that a slow reader or writer on this
// side has all the time it wants.
type watchdog struct {
	timeout time.Duration
	timer   *time.Timer // nil: never
}

// watch derives the context of a transfer.
func (c *client) watch(ctx context.Context) (context.Context, *watchdog, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{timeout: c.timeout}
	if c.timeout > 0 {
		w.timer = time.AfterFunc(c.timeout, func() {
			cancel(&silentError{fmt.Sprintf("no progress for %s (--timeout)", c.timeout)})
		})
		w.timer.Stop()
	}
	return ctx, w, func() {
		w.sleep()
		cancel(nil)
	}
}

func (w *watchdog) wake() {
	if w.timer != nil {
		w.timer.Reset(w.timeout)
	}
}

func (w *watchdog) sleep() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// stalled gives the reason why ctx was ended by its watchdog in place of the
// cancellation that followed from it.
func stalled(ctx context.Context, err error) error {
	var silent *silentError
	if err != nil && errors.As(context.Cause(ctx), &silent) {
		return silent
	}
	return err
}
