package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// maxChanges is how often a change is made anew because something else has
// changed the same user or key.
const maxChanges = 5

// jsonUser is a user; with a change, what was done to it.
type jsonUser struct {
	Type         string   `json:"type"` // "user"
	Name         string   `json:"name"`
	Disabled     bool     `json:"disabled,omitempty"`
	Grants       []string `json:"grants,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
	CreatedAt    string   `json:"created_at,omitempty"`
	Revision     uint64   `json:"revision,omitempty"`
	Change       string   `json:"change,omitempty"` // "add", "set", "remove"
}

func userJSON(u *gridloomv1.User, change string) jsonUser {
	return jsonUser{
		Type: "user", Name: u.GetName(), Disabled: u.GetDisabled(), Grants: grantTexts(u.GetGrants()), Certificates: u.GetCertificates(),
		CreatedAt: optionalStamp(u.GetCreatedAt()), Revision: u.GetRevision(), Change: change,
	}
}

func (a *app) userAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Long: `Add a user. A name is 1 to 64 of a-z, 0-9 and, after the first, ". _ @ -". It
can do nothing until it has a grant, and prove nothing until it has a key
(gridloom iam key add) or a certificate: with mutual TLS, a client whose
certificate has one of the names is that user.`,
		Example: `  gridloom iam user add ann --grant readwrite:photos/2026/ --grant readonly:docs
  gridloom iam user add prometheus --grant metrics
  gridloom iam user add backup --grant readonly:'*' --certificate backup.example.com`,
		Args: arguments(1, 1),
	}
	grants := grantFlag(cmd, "let the user do what `GRANT` says; repeatable")
	certificates := cmd.Flags().StringArray("certificate", nil, "a client certificate with `NAME` stands for the user; repeatable")
	disabled := cmd.Flags().Bool("disabled", false, "let nobody in as the user for now")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		ctx, cancel := c.call(ctx)
		defer cancel()
		r, err := c.iam.CreateUser(ctx, &gridloomv1.CreateUserRequest{
			Name: args[0], Grants: *grants, Certificates: *certificates, Disabled: *disabled,
		})
		if err != nil {
			return err
		}
		return a.out.print(userJSON(r.GetUser(), "add"), func() string { return shown(args[0]) + " added\n" })
	})
}

func (a *app) userListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the users",
		Long:  `List the users with what they may do, in the order of their names.`,
		Example: `  gridloom iam user ls
  gridloom iam user ls --json | jq -r 'select(.disabled).name'`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		var rows [][]string
		err := c.listUsers(ctx, func(u *gridloomv1.User) error {
			if a.json {
				return a.out.print(userJSON(u, ""), nil)
			}
			rows = append(rows, []string{
				shown(u.GetName()), stateWord(u.GetDisabled()), column(u.GetCreatedAt(), ""), grantsColumn(u.GetGrants()), namesColumn(u.GetCertificates()),
			})
			return nil
		})
		if err != nil || a.json {
			return err
		}
		return a.out.print(nil, func() string { return rowsText("USER\tSTATE\tCREATED\tGRANTS\tCERTIFICATES", rows) })
	})
}

func (a *app) userSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a user",
		Long: `Change a user: what flags name is set, the rest stays as it is. --grant replaces
all of its grants, --certificate all of its certificates' names. It is in effect
on every node within 5 seconds, also on what is under way.`,
		Example: `  gridloom iam user set ann --grant readonly:photos
  gridloom iam user set ann --disabled
  gridloom iam user set ann --disabled=false
  gridloom iam user set ann --no-grants`,
		Args: arguments(1, 1),
	}
	grants := grantFlag(cmd, "let the user do what `GRANT` says, and nothing else; repeatable")
	noGrants := cmd.Flags().Bool("no-grants", false, "let the user do nothing")
	certificates := cmd.Flags().StringArray("certificate", nil, "a client certificate with `NAME` stands for the user, and no other; repeatable")
	noCertificates := cmd.Flags().Bool("no-certificates", false, "let no client certificate stand for the user")
	disabled := cmd.Flags().Bool("disabled", false, "let nobody in as the user; =false ends that")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		given := cmd.Flags().Changed
		switch {
		case !given("grant") && !*noGrants && !given("certificate") && !*noCertificates && !given("disabled"):
			return usageErrorf("nothing is to be set; give --grant, --no-grants, --certificate, --no-certificates or --disabled")
		case given("grant") && *noGrants:
			return usageErrorf("--no-grants contradicts --grant")
		case given("certificate") && *noCertificates:
			return usageErrorf("--no-certificates contradicts --certificate")
		}
		u, err := unlessChanged(func() (*gridloomv1.User, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			old, err := c.iam.GetUser(ctx, &gridloomv1.GetUserRequest{Name: args[0]})
			if err != nil {
				return nil, err
			}
			u := old.GetUser()
			if given("grant") || *noGrants {
				u.Grants = *grants
			}
			if given("certificate") || *noCertificates {
				u.Certificates = *certificates
			}
			if given("disabled") {
				u.Disabled = *disabled
			}
			r, err := c.iam.UpdateUser(ctx, &gridloomv1.UpdateUserRequest{
				Name: u.GetName(), Grants: u.GetGrants(), Certificates: u.GetCertificates(), Disabled: u.GetDisabled(), Revision: u.GetRevision(),
			})
			return r.GetUser(), err
		})
		if err != nil {
			return err
		}
		return a.out.print(userJSON(u, "set"), func() string { return shown(args[0]) + " set\n" })
	})
}

// unlessChanged makes a change that begins with what there is, again where
// that has been changed meanwhile.
func unlessChanged[T any](change func() (T, error)) (done T, err error) {
	for range maxChanges {
		done, err = change()
		if rpcCode(err) != codes.FailedPrecondition || reason(err) != "precondition_failed" {
			break
		}
	}
	return done, err
}

func (a *app) userRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove users and their keys",
		Long:    `Remove users. Their keys go with them, and what those have signed.`,
		Example: `  gridloom iam user rm ann`,
		Args:    arguments(1, -1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		for _, name := range args {
			err := c.brief(ctx, func(ctx context.Context) error {
				_, err := c.iam.DeleteUser(ctx, &gridloomv1.DeleteUserRequest{Name: name})
				return err
			})
			if err == nil {
				err = a.out.print(jsonUser{Type: "user", Name: name, Change: "remove"}, func() string { return shown(name) + " removed\n" })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// brief makes one call.
func (c *client) brief(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return call(ctx)
}

// listUsers calls user with each of them.
func (c *client) listUsers(ctx context.Context, user func(*gridloomv1.User) error) error {
	req := &gridloomv1.ListUsersRequest{}
	for {
		var page *gridloomv1.ListUsersResponse
		err := c.brief(ctx, func(ctx context.Context) (err error) {
			page, err = c.iam.ListUsers(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		for _, u := range page.GetUsers() {
			if err := user(u); err != nil {
				return err
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
}

func stateWord(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

func grantsColumn(grants []*gridloomv1.Grant) string { return namesColumn(grantTexts(grants)) }

// namesColumn is a list in a column.
func namesColumn(names []string) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = shown(n)
	}
	if len(texts) == 0 {
		return "-"
	}
	return strings.Join(texts, ", ")
}
