package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonKey is an access key; with a change, what was done to it.
type jsonKey struct {
	Type       string   `json:"type"` // "key"
	ID         string   `json:"id"`
	User       string   `json:"user,omitempty"`
	Service    bool     `json:"service,omitempty"`
	Grants     []string `json:"grants,omitempty"`
	Disabled   bool     `json:"disabled,omitempty"`
	Comment    string   `json:"comment,omitempty"`
	CreatedAt  string   `json:"created_at,omitempty"`
	ExpiresAt  string   `json:"expires_at,omitempty"`
	LastUsedAt string   `json:"last_used_at,omitempty"`
	Revision   uint64   `json:"revision,omitempty"`
	Change     string   `json:"change,omitempty"` // "add", "set", "remove"
	// Of one that was added: the credential, a secret, or the file that has it.
	Credential string `json:"credential,omitempty"`
	File       string `json:"file,omitempty"`
}

func keyJSON(k *gridloomv1.Key, change string) jsonKey {
	return jsonKey{
		Type: "key", ID: k.GetId(), User: k.GetUser(), Service: k.GetService(), Grants: grantTexts(k.GetGrants()),
		Disabled: k.GetDisabled(), Comment: k.GetComment(),
		CreatedAt: optionalStamp(k.GetCreatedAt()), ExpiresAt: optionalStamp(k.GetExpiresAt()), LastUsedAt: optionalStamp(k.GetLastUsedAt()),
		Revision: k.GetRevision(), Change: change,
	}
}

func (a *app) keyAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [USER]",
		Short: "Make an access key",
		Long: `Make an access key of USER, or of yourself, and print its credential: this is
the only time that it is shown. With --out it is in a new file that you alone
can read, as --key-file takes it, and isn't printed.

With --service it is a service key, which may do what both its own grants and
its user's allow. You may make service keys for yourself, until you have 100
keys, with up to 16 grants each; they end with the key that you make them with.
Everything else takes admin:*.`,
		Example: `  gridloom iam key add ann --expires 90d --out ann.key
  gridloom iam key add --service --grant readonly:photos --comment 'report job' --out report.key
  gridloom iam key add ann --json | jq -r .credential`,
		Args: arguments(0, 1),
	}
	expires := expiresFlag(cmd, "refuse it after `DURATION` (30d, 12h); never without")
	service := cmd.Flags().Bool("service", false, "make a service key")
	grants := grantFlag(cmd, "let a service key do what `GRANT` says, and nothing else; repeatable")
	comment := cmd.Flags().String("comment", "", "say in `TEXT` what it is for")
	out := cmd.Flags().String("out", "", "write the credential to the new file `FILE`, and don't print it")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		req := &gridloomv1.CreateKeyRequest{Service: *service, Grants: *grants, ExpiresAt: expires.at(time.Now()), Comment: *comment}
		if len(args) > 0 {
			req.User = args[0]
		}
		if *service != (len(*grants) > 0) {
			return usageErrorf("--service and --grant are given together or not at all: a service key has grants, and no other key has")
		}
		if *out == "" {
			r, err := c.createKey(ctx, req)
			if err != nil {
				return err
			}
			j := keyJSON(r.GetKey(), "add")
			j.Credential = r.GetCredential()
			return a.out.print(j, func() string { return r.GetCredential() + "\n" })
		}
		r, err := c.createKeyInto(ctx, req, *out)
		if err != nil {
			return err
		}
		j := keyJSON(r.GetKey(), "add")
		j.File = *out
		return a.out.print(j, func() string { return fmt.Sprintf("%s added, and written to %s\n", shown(j.ID), shown(*out)) })
	})
}

func (c *client) createKey(ctx context.Context, req *gridloomv1.CreateKeyRequest) (*gridloomv1.CreateKeyResponse, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.iam.CreateKey(ctx, req)
}

// createKeyInto makes a key and writes it to a new file, which is there before
// the key is: one that can't be written down would be of no use. Where
// anything fails, neither is left.
func (c *client) createKeyInto(ctx context.Context, req *gridloomv1.CreateKeyRequest, name string) (_ *gridloomv1.CreateKeyResponse, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, usageErrorf("--out: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(name)
		}
	}()
	defer f.Close() // once more, where all went well
	r, err := c.createKey(ctx, req)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(f, r.GetCredential()+"\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		return r, nil
	}
	// Nobody has it, so nobody shall be able to use it.
	return nil, errors.Join(err, c.brief(ctx, func(ctx context.Context) error {
		_, err := c.iam.DeleteKey(ctx, &gridloomv1.DeleteKeyRequest{Id: r.GetKey().GetId()})
		return err
	}))
}

func (a *app) keyListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [USER]",
		Short: "List access keys",
		Long: `List the access keys of USER, or all of them, in the order of their ids. All of
them, and those of others, are for admin:* to see.`,
		Example: `  gridloom iam key ls ann
  gridloom iam key ls --json | jq -r 'select(.last_used_at == null).id'`,
		Args: arguments(0, 1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		req := &gridloomv1.ListKeysRequest{}
		if len(args) > 0 {
			req.User = args[0]
		}
		var rows [][]string
		err := c.listKeys(ctx, req, func(k *gridloomv1.Key) error {
			if a.json {
				return a.out.print(keyJSON(k, ""), nil)
			}
			grants := "as its user"
			if k.GetService() {
				grants = grantsColumn(k.GetGrants())
			}
			rows = append(rows, []string{
				shown(k.GetId()), shown(k.GetUser()), keyState(k, time.Now()),
				column(k.GetExpiresAt(), "never"), column(k.GetLastUsedAt(), "not yet"), grants, shown(k.GetComment()),
			})
			return nil
		})
		if err != nil || a.json {
			return err
		}
		return a.out.print(nil, func() string { return rowsText("KEY\tUSER\tSTATE\tEXPIRES\tUSED\tGRANTS\tCOMMENT", rows) })
	})
}

func keyState(k *gridloomv1.Key, now time.Time) string {
	if !k.GetDisabled() && k.GetExpiresAt() != nil && !now.Before(k.GetExpiresAt().AsTime()) {
		return "expired"
	}
	return stateWord(k.GetDisabled())
}

func (a *app) keySetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set KEY",
		Short: "Change an access key",
		Long: `Change the access key with the id KEY: what flags name is set, the rest stays as
it is. --grant replaces all grants of a service key. It is in effect on every
node within 5 seconds, also on what is under way.`,
		Example: `  gridloom iam key set 7f3k2mq4xzab5c6d --disabled
  gridloom iam key set 7f3k2mq4xzab5c6d --disabled=false --expires 30d
  gridloom iam key set 7f3k2mq4xzab5c6d --expires never`,
		Args: arguments(1, 1),
	}
	expires := expiresFlag(cmd, "refuse it `DURATION` from now on (30d, 12h), or never")
	grants := grantFlag(cmd, "let the service key do what `GRANT` says, and nothing else; repeatable")
	comment := cmd.Flags().String("comment", "", "say in `TEXT` what it is for")
	disabled := cmd.Flags().Bool("disabled", false, "refuse it; =false ends that")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		given := cmd.Flags().Changed
		if !given("expires") && !given("grant") && !given("comment") && !given("disabled") {
			return usageErrorf("nothing is to be set; give --expires, --grant, --comment or --disabled")
		}
		k, err := unlessChanged(func() (*gridloomv1.Key, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			old, err := c.iam.GetKey(ctx, &gridloomv1.GetKeyRequest{Id: args[0]})
			if err != nil {
				return nil, err
			}
			k := old.GetKey()
			if given("expires") {
				k.ExpiresAt = expires.at(time.Now())
			}
			if given("grant") {
				k.Grants = *grants
			}
			if given("comment") {
				k.Comment = *comment
			}
			if given("disabled") {
				k.Disabled = *disabled
			}
			r, err := c.iam.UpdateKey(ctx, &gridloomv1.UpdateKeyRequest{
				Id: k.GetId(), Grants: k.GetGrants(), ExpiresAt: k.GetExpiresAt(), Disabled: k.GetDisabled(), Comment: k.GetComment(), Revision: k.GetRevision(),
			})
			return r.GetKey(), err
		})
		if err != nil {
			return err
		}
		return a.out.print(keyJSON(k, "set"), func() string { return shown(args[0]) + " set\n" })
	})
}

func (a *app) keyRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm KEY...",
		Short: "Remove access keys",
		Long: `Remove access keys by their ids. They, and the tokens and links they have made,
are refused from then on.`,
		Example: `  gridloom iam key rm 7f3k2mq4xzab5c6d`,
		Args:    arguments(1, -1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		for _, id := range args {
			err := c.brief(ctx, func(ctx context.Context) error {
				_, err := c.iam.DeleteKey(ctx, &gridloomv1.DeleteKeyRequest{Id: id})
				return err
			})
			if err == nil {
				err = a.out.print(jsonKey{Type: "key", ID: id, Change: "remove"}, func() string { return shown(id) + " removed\n" })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// listKeys calls key with each of them.
func (c *client) listKeys(ctx context.Context, req *gridloomv1.ListKeysRequest, key func(*gridloomv1.Key) error) error {
	for {
		var page *gridloomv1.ListKeysResponse
		err := c.brief(ctx, func(ctx context.Context) (err error) {
			page, err = c.iam.ListKeys(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		for _, k := range page.GetKeys() {
			if err := key(k); err != nil {
				return err
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
}
