package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/iam"
)

// jsonIdentity is who a node takes the caller for.
type jsonIdentity struct {
	Type         string   `json:"type"` // "identity"
	User         string   `json:"user"`
	KeyID        string   `json:"key_id,omitempty"`
	Root         bool     `json:"root,omitempty"`
	Service      bool     `json:"service,omitempty"`
	Credential   string   `json:"credential_type"` // "root_key", "key", "token", "certificate"
	Grants       []string `json:"grants"`
	ExpiresAt    string   `json:"expires_at,omitempty"`
	DeploymentID string   `json:"deployment_id"`
}

// jsonToken is a token. It is a secret.
type jsonToken struct {
	Type      string `json:"type"` // "token"
	Token     string `json:"token"`
	ExpiresAt string `json:"expires_at"`
}

func (a *app) iamCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "iam",
		Short: "Say who may do what: users, access keys, tokens",
		Long: `Say who may do what. A user has grants, and access keys to prove who it is;
without a grant it may do nothing. A grant is a role over something:

  readonly:photos          describe the bucket, list and read its objects
  readwrite:photos/2026/   that, and write and delete, of keys that begin so
  admin:photos             everything in the bucket, and to make and delete it
  readwrite:*              every bucket
  admin:*                  everything, users and nodes too
  metrics                  metrics and the state of the cluster, nothing else

Users and keys are for those with admin:*, and for the root key. Everybody else
has whoami, tokens, and service keys of their own.`,
		Example: `  gridloom iam user add ann --grant readwrite:photos
  gridloom iam key add ann --expires 90d --out ann.key
  gridloom iam whoami --key-file ann.key`,
	}, a.whoAmICommand(), a.tokenCommand(), a.userCommand(), a.keyCommand())
}

func (a *app) userCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "user",
		Short: "Add, list, change and remove users",
		Long: `Add users, list and change them, and remove them. gridloom iam --help says what
a grant is.`,
		Example: `  gridloom iam user add ann --grant readwrite:photos
  gridloom iam user ls`,
	}, a.userAddCommand(), a.userListCommand(), a.userSetCommand(), a.userRemoveCommand())
}

func (a *app) keyCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "key",
		Short: "Add, list, change and remove access keys",
		Long: `Add access keys to users, list and change them, and remove them. A service key
is one with grants of its own: it may do what both they and its user's allow,
and every user may have some without asking.`,
		Example: `  gridloom iam key add ann --expires 90d --out ann.key
  gridloom iam key ls ann`,
	}, a.keyAddCommand(), a.keyListCommand(), a.keySetCommand(), a.keyRemoveCommand())
}

func (a *app) whoAmICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are to the mesh, and what you may do",
		Long: `Show who the node takes you for: the user, the key and what it may do, and until
when.`,
		Example: `  gridloom iam whoami
  gridloom iam whoami --json | jq -r .deployment_id`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		r, err := c.whoAmI(ctx)
		if err != nil {
			return err
		}
		j := jsonIdentity{
			Type: "identity", User: r.GetUser(), KeyID: r.GetKeyId(), Root: r.GetRoot(), Service: r.GetService(),
			Credential: enumWord(r.GetCredentialType(), "CREDENTIAL_TYPE_"), Grants: grantTexts(r.GetGrants()),
			ExpiresAt: optionalStamp(r.GetExpiresAt()), DeploymentID: r.GetDeploymentId(),
		}
		return a.out.print(j, j.text)
	})
}

func (c *client) whoAmI(ctx context.Context) (*gridloomv1.WhoAmIResponse, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.iam.WhoAmI(ctx, &gridloomv1.WhoAmIRequest{})
}

func (j *jsonIdentity) text() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s%s\n", name+":", shown(value))
		}
	}
	line("User", j.User)
	line("Key", j.KeyID)
	by := strings.ReplaceAll(j.Credential, "_", " ")
	if j.Service {
		by += ", of a service key"
		if j.Credential == "key" {
			by = "service key"
		}
	}
	line("By", by)
	switch {
	case j.Root:
		line("May", "everything")
	case len(j.Grants) == 0:
		line("May", "nothing")
	}
	for _, g := range j.Grants {
		line("May", g)
	}
	line("Until", j.ExpiresAt)
	line("Deployment", j.DeploymentID)
	return b.String()
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token: a key for some minutes",
		Long: `Make a token, which stands for your key for at most 15 minutes, and print it. It
goes where the key goes: into GRIDLOOM_KEY, a --key-file, or after "Bearer ".
It ends with the key, if that ends before. --grant narrows what it may do.`,
		Example: `  gridloom iam token --json | jq -r .expires_at
  GRIDLOOM_KEY=$(gridloom iam token --ttl 5m --grant readonly:photos) ./report.sh`,
		Args: arguments(0, 0),
	}
	ttl := cmd.Flags().Duration("ttl", iam.MaxTokenAge, "make it good for `DURATION`, at most 15m")
	grants := grantFlag(cmd, "let it do no more than `GRANT`; repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		if *ttl < time.Second || *ttl > iam.MaxTokenAge {
			return usageErrorf("--ttl: %s is not between 1s and %s", *ttl, iam.MaxTokenAge)
		}
		ctx, cancel := c.call(ctx)
		defer cancel()
		r, err := c.iam.IssueToken(ctx, &gridloomv1.IssueTokenRequest{Ttl: durationpb.New(*ttl), Grants: *grants})
		if err != nil {
			return err
		}
		j := jsonToken{Type: "token", Token: r.GetToken(), ExpiresAt: stamp(r.GetExpiresAt().AsTime())}
		return a.out.print(j, func() string { return r.GetToken() + "\n" })
	})
}

// grantList is a repeatable flag of grants in their text form.
type grantList []*gridloomv1.Grant

// Set adds one. No comma parts them: a prefix may have some.
func (l *grantList) Set(text string) error {
	g, err := iam.ParseGrant(text)
	if err != nil {
		var field *iam.FieldError
		if errors.As(err, &field) {
			return fmt.Errorf("is no grant like readwrite:photos/2026/: its %w", err)
		}
		return err
	}
	*l = append(*l, &gridloomv1.Grant{Role: roleOf(g.Role), Bucket: g.Bucket, Prefix: g.Prefix})
	return nil
}

// String implements pflag.Value.
func (l *grantList) String() string { return strings.Join(grantTexts(*l), " ") }

// Type implements pflag.Value.
func (*grantList) Type() string { return "grant" }

// grantFlag adds --grant to a command.
func grantFlag(cmd *cobra.Command, usage string) *grantList {
	var l grantList
	cmd.Flags().Var(&l, "grant", usage)
	return &l
}

// roleOf is a role as a request has it.
func roleOf(r iam.Role) gridloomv1.Role {
	switch r {
	case iam.ReadOnly:
		return gridloomv1.Role_ROLE_READONLY
	case iam.ReadWrite:
		return gridloomv1.Role_ROLE_READWRITE
	case iam.Admin:
		return gridloomv1.Role_ROLE_ADMIN
	case iam.Metrics:
		return gridloomv1.Role_ROLE_METRICS
	}
	return gridloomv1.Role_ROLE_UNSPECIFIED
}

// grantTexts are grants in their text form, never nil.
func grantTexts(grants []*gridloomv1.Grant) []string {
	texts := make([]string, len(grants))
	for i, g := range grants {
		role := iam.Role(enumWord(g.GetRole(), "ROLE_"))
		texts[i] = iam.Grant{Role: role, Bucket: g.GetBucket(), Prefix: g.GetPrefix()}.String()
	}
	return texts
}

// optionalStamp is "" for no time.
func optionalStamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return stamp(t.AsTime())
}

// column is a time in a column, or what stands for none.
func column(t *timestamppb.Timestamp, none string) string {
	if t == nil {
		return none
	}
	return seconds(t.AsTime())
}

// rowsText is a table of two or more columns.
func rowsText(head string, rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
	return b.String()
}
