package main

import (
	"github.com/spf13/cobra"

	"github.com/gridloom/gridloom/node/iam"
)

// generated is the JSON form of gridloom keygen: one of the two.
type generated struct {
	Key        string `json:"key,omitempty"`
	MeshSecret string `json:"mesh_secret,omitempty"`
}

func (a *app) keygenCommand() *cobra.Command {
	var meshSecret bool
	cmd := &cobra.Command{
		Use:     "keygen",
		GroupID: "server",
		Short:   "Make a root key or a mesh secret",
		Long: `Make a root key, or with --mesh-secret the secret that the nodes of a mesh
share, and print it. Nothing is kept: a node alone and gridloom dev make and
keep their own, so this is for a mesh of several machines.`,
		Example: `  umask 077
  gridloom keygen > root.key
  gridloom keygen --mesh-secret > mesh.secret
  gridloom serve --name a --peers a=https://10.0.0.1:7402,b=https://10.0.0.2:7402 \
      --tls auto --key-file root.key --mesh-secret-file mesh.secret ...`,
		Args: arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if meshSecret {
				secret := iam.NewMeshSecret()
				return a.out.print(generated{MeshSecret: secret}, func() string { return secret + "\n" })
			}
			key := iam.Generate(iam.RootID).String()
			return a.out.print(generated{Key: key}, func() string { return key + "\n" })
		},
	}
	cmd.Flags().BoolVar(&meshSecret, "mesh-secret", false, "make a mesh secret instead of a root key")
	return cmd
}
