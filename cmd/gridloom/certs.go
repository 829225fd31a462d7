package main

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node"
	"github.com/gridloom/gridloom/node/certs"
)

// jsonCertificate is a certificate that a listener shows.
type jsonCertificate struct {
	Type      string   `json:"type"` // "certificate"
	Node      string   `json:"node"`
	Listener  string   `json:"listener"` // "grpc", "http", "peer"
	Names     []string `json:"names"`
	Issuer    string   `json:"issuer"`
	NotBefore string   `json:"not_before"`
	NotAfter  string   `json:"not_after"`
	DaysLeft  float64  `json:"days_left"` // negative once it has expired
	SHA256    string   `json:"sha256"`
}

// jsonDown is a node that can't be asked.
type jsonDown struct {
	Type  string `json:"type"` // "node"
	Name  string `json:"name"`
	State string `json:"state"` // "down"
}

// jsonAuthorities is the JSON form of gridloom certs ca.
type jsonAuthorities struct {
	CA string `json:"ca"` // PEM
}

func (a *app) certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "List the certificates of all nodes, and when they expire",
		Long: `List the TLS certificates that the nodes' listeners show, as the node at
--endpoint hears of them: whose they are, for which names, by whom, until when.

Those of --tls auto renew themselves ten days before they expire; one from files
is taken over when the file changes. gridloom cluster status warns of any that
has less than seven days left.`,
		Example: `  gridloom certs
  gridloom certs --json | jq -r 'select(.days_left < 7).node'`,
		Args: arguments(0, 0),
	}
	a.clientCommand(cmd, a.listCertificates)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.AddCommand(a.certsCACommand())
	return cmd
}

func (a *app) listCertificates(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	reply, err := c.cluster.GetCertificates(ctx, &gridloomv1.GetCertificatesRequest{})
	if err != nil {
		return err
	}
	all, down := certificatesJSON(reply, time.Now())
	if !a.json {
		return a.out.print(nil, func() string { return certificatesText(all, down) })
	}
	for _, j := range all {
		if err := a.out.print(j, nil); err != nil {
			return err
		}
	}
	for _, name := range down {
		if err := a.out.print(jsonDown{Type: "node", Name: name, State: "down"}, nil); err != nil {
			return err
		}
	}
	return nil
}

// certificatesJSON lists the certificates, and the nodes that are down.
func certificatesJSON(r *gridloomv1.GetCertificatesResponse, now time.Time) (all []jsonCertificate, down []string) {
	for _, n := range r.GetNodes() {
		if n.GetState() != gridloomv1.NodeState_NODE_STATE_UP {
			down = append(down, n.GetNode())
		}
		for _, c := range n.GetCertificates() {
			notAfter := c.GetNotAfter().AsTime()
			all = append(all, jsonCertificate{
				Type: "certificate", Node: n.GetNode(), Listener: c.GetListener(), Names: c.GetNames(), Issuer: c.GetIssuer(),
				NotBefore: stamp(c.GetNotBefore().AsTime()), NotAfter: stamp(notAfter),
				DaysLeft: float64(notAfter.Sub(now)) / float64(24*time.Hour), SHA256: c.GetSha256(),
			})
		}
	}
	return all, down
}

func certificatesText(all []jsonCertificate, down []string) string {
	if len(all) == 0 && len(down) == 0 {
		return "no listener uses TLS\n"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tLISTENER\tNAMES\tISSUER\tEXPIRES\tLEFT")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", shown(c.Node), shown(c.Listener), shown(namesText(c.Names)), shown(c.Issuer), c.NotAfter, leftText(c.DaysLeft))
	}
	for _, name := range down {
		fmt.Fprintf(w, "%s\t-\t-\t-\t-\tdown\n", shown(name))
	}
	w.Flush()
	return b.String()
}

// namesText is the first names, and how many more there are.
func namesText(names []string) string {
	const first = 3
	if len(names) <= first+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:first], ", "), len(names)-first)
}

func leftText(days float64) string {
	switch {
	case days <= 0:
		return "expired"
	case days < 2:
		return fmt.Sprintf("%.1f days", days)
	}
	return fmt.Sprintf("%d days", int(days))
}

func (a *app) certsCACommand() *cobra.Command {
	s := newSettings(forCA)
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate authority of a mesh, for clients to trust",
		Long: `Print the certificate of the authority that signs the nodes' certificates with
--tls auto, in PEM form: for gridloom --ca, for curl --cacert, and for whatever
else is to trust the nodes.

The authority follows from the mesh secret: with that no node is needed.
Otherwise it is that of a node on this machine, from its data directory. While a
mesh secret is being rotated there are several, the one that signs the first.`,
		Example: `  gridloom certs ca --mesh-secret-file mesh.secret > ca.pem
  gridloom certs ca --data /var/lib/gridloom > ca.pem`,
		Args: arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if err := s.load(a.env); err != nil {
				return err
			}
			ca, err := s.meshAuthorities()
			if err != nil {
				return err
			}
			return a.out.print(jsonAuthorities{string(ca)}, func() string { return string(ca) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().AddFlagSet(s.flags.flags)
	return cmd
}

// meshAuthorities is what clients of a mesh have to trust, in PEM form.
func (s *settings) meshAuthorities() ([]byte, error) {
	secrets, err := s.readMeshSecrets(readBounded)
	if err != nil {
		return nil, err
	}
	var all []byte
	if secrets != nil {
		for _, secret := range secrets.get() {
			authority, err := certs.NewAuthority(secret)
			if err != nil {
				return nil, err
			}
			all = append(all, authority.PEM()...)
		}
		return all, nil
	}
	name := node.CAFile(s.Data)
	all, err = readBounded(name, maxConfigBytes)
	switch block, _ := pem.Decode(all); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.about("data", fmt.Errorf("there is no %s: no node with --tls auto keeps its data there; --mesh-secret-file does without", name))
	case err != nil:
		return nil, s.about("data", err)
	case block == nil:
		return nil, s.about("data", fmt.Errorf("%s holds no certificate in PEM form", name))
	}
	return all, nil
}
