package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/iam"
)

// TestClientCertificate: whoever shows a certificate that the listener's
// authority has signed is the user that has one of its names, by gRPC and HTTP;
// a bearer goes before it, and nothing else gets in.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	cfg := meshConfigs(t, t.TempDir(), 1)[0]
	dir := t.TempDir()
	cert, key, ca := writeCertificate(t, dir, 1, "127.0.0.1", "ann.example")
	for _, l := range []*ListenerConfig{&cfg.GRPC, &cfg.HTTP} {
		l.CertFile, l.KeyFile, l.CAFile = cert, key, ca
	}
	r := runNode(t, cfg)
	r.await(t)
	ann := iam.User{Name: "ann", Certificates: []string{"ann.example"}, Grants: []iam.Grant{{Role: iam.ReadOnly, Bucket: "photos"}}}
	if _, err := r.identities.CreateUser(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	nobodyCert, nobodyKey, _ := writeCertificate(t, t.TempDir(), 1, "127.0.0.1", "nobody.example")
	foreignCert, foreignKey, _ := writeCertificate(t, t.TempDir(), 2, "127.0.0.1", "ann.example")
	for what, c := range map[string]struct {
		cert, key, bearer string
		user              string // "" where it is refused
	}{
		"a certificate":            {cert, key, "", "ann"},
		"none":                     {"", "", "", ""},
		"nobody's":                 {nobodyCert, nobodyKey, "", ""},
		"another authority's":      {foreignCert, foreignKey, "", ""},
		"a bearer beside it":       {cert, key, testKey.String(), "root"},
		"a wrong bearer beside it": {cert, key, iam.Generate("ann").String(), ""},
	} {
		conf := clientTLS(t, ca, c.cert, c.key)
		user, code := whoAmI(t, r, conf, c.bearer)
		if user != c.user || (c.user == "") == (code == codes.OK) || c.user == "" && code != codes.Unauthenticated && code != codes.Unavailable {
			t.Errorf("%s by gRPC: %q, %v; want %q", what, user, code, c.user)
		}
		want := http.StatusUnauthorized
		if c.user != "" {
			want = http.StatusOK
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.Addrs().HTTP+"/v1/iam/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.bearer != "" {
			req.Header.Set("Authorization", "Bearer "+c.bearer)
		}
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}).Do(req)
		if err != nil {
			if code != codes.Unavailable { // the handshake is refused, by both
				t.Errorf("%s by HTTP: %v", what, err)
			}
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || code == codes.Unavailable {
			t.Errorf("%s by HTTP: %s, want %d", what, resp.Status, want)
		}
	}
}

// clientTLS trusts an authority, and shows a certificate where there is one.
func clientTLS(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{RootCAs: x509.NewCertPool()}
	conf.RootCAs.AppendCertsFromPEM(pem)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		// Shown even where the listener has said that it would not take it.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return conf
}

func whoAmI(t *testing.T, r *running, conf *tls.Config, bearer string) (user string, code codes.Code) {
	t.Helper()
	conn, err := grpc.NewClient(r.Addrs().GRPC, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := context.Context(t.Context())
	if bearer != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer)
	}
	me, err := pb.NewIAMServiceClient(conn).WhoAmI(ctx, &pb.WhoAmIRequest{})
	return me.GetUser(), status.Code(err)
}
