package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gridloom/gridloom/node/iam"
)

// jsonLink is a presigned link. Whoever has it may use it.
type jsonLink struct {
	Type      string            `json:"type"` // "link"
	Bucket    string            `json:"bucket"`
	Key       string            `json:"key"`
	Method    string            `json:"method"`
	URL       string            `json:"url"`
	ExpiresAt string            `json:"expires_at"`
	Headers   map[string]string `json:"headers,omitempty"` // to be sent just so
	Answer    map[string]string `json:"answer,omitempty"`  // fields that the answer has
}

func (a *app) shareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "share BUCKET/KEY",
		Short: "Make a link to an object, for someone without a key",
		Long: `Make a link with which anybody may get an object, put it or delete it, until the
link expires, and print it. It is signed here, with your key, and allows no more
than that key does; removing or disabling the key ends it.

A link to put may say by --digest which bytes it is for, and any link by
--header what has to be sent with it. A link to get may say by
--response-header what the answer has in place of the object's own: content-type,
content-disposition, content-encoding, content-language, cache-control, expires.

The link's address is --url, or the endpoint's with the next port, which is that
of HTTP unless you have chosen others. The mesh is asked for its id, unless
--deployment says it.`,
		Example: `  gridloom share photos/summer/a.jpg
  gridloom share photos/summer/a.jpg --expires 7d --url https://files.example.com
  gridloom share inbox/report.pdf --method PUT --header content-type=application/pdf
  gridloom share docs/q3.bin --response-header 'content-disposition=attachment; filename="Q3.pdf"'
  curl -T a.bin "$(gridloom share inbox/a.bin --method PUT --digest $(sha256sum < a.bin | cut -c -64))"`,
		Args: arguments(1, 1),
	}
	f := cmd.Flags()
	method := f.String("method", "GET", "allow `METHOD`: GET (HEAD, too), PUT or DELETE")
	expires := lifetime(time.Hour)
	f.Var(&expires, "expires", "end after `DURATION` (1h, 7d), at most 7d")
	digest := f.String("digest", "", "allow to put only what has the `SHA256`, in hex")
	headers := f.StringArray("header", nil, "ask for the header `NAME=VALUE` with the request; repeatable")
	answer := f.StringArray("response-header", nil, "answer with the header `NAME=VALUE`; repeatable")
	base := f.String("url", "", "begin the link with `URL`, a node's HTTP listener as its users reach it")
	deployment := f.String("deployment", "", "sign it for the mesh with `ID`, without asking for it")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		at, err := parseObject(args[0])
		if err != nil {
			return err
		}
		r := iam.LinkRequest{Method: *method, Bucket: at.bucket, Key: at.key}
		if r.Digest, err = parseDigest(*digest); err != nil {
			return err
		}
		signed, err := pairs("header", *headers)
		if err != nil {
			return err
		}
		fields, err := pairs("response-header", *answer)
		if err != nil {
			return err
		}
		r.Headers, r.Answer = sortedPairs(signed), sortedPairs(fields)
		if c.who.key.IsZero() {
			return usageErrorf("a link is signed with a key, and a token can't")
		}
		address, err := c.httpAddress(*base)
		if err != nil {
			return err
		}
		if *deployment == "" {
			who, err := c.whoAmI(ctx)
			if err != nil {
				return err
			}
			*deployment = who.GetDeploymentId()
		}
		now := time.Now()
		r.Expires = now.Add(time.Duration(expires)).Truncate(time.Second)
		link, err := iam.SignLink(c.who.key, *deployment, r, now)
		var field *iam.FieldError
		if errors.As(err, &field) {
			return usageErrorf("the link's %w", err)
		}
		if err != nil {
			return err
		}
		j := jsonLink{
			Type: "link", Bucket: at.bucket, Key: at.key, Method: r.Method, URL: address + link, ExpiresAt: stamp(r.Expires), Headers: signed, Answer: fields,
		}
		return a.out.print(j, func() string { return j.URL + "\n" })
	})
}

// sortedPairs are names and values in the order of the names, so that errors come
// in order.
func sortedPairs(m map[string]string) [][2]string {
	var list [][2]string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, [2]string{name, m[name]})
	}
	return list
}

func parseDigest(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != 32 {
		return nil, usageErrorf("--digest: %q is not a SHA-256: 64 hex digits", text)
	}
	return sum, nil
}

// httpAddress is the base URL of links: the one given, or else the HTTP
// listener next to the endpoint, as the nodes' defaults have it.
func (c *client) httpAddress(base string) (string, error) {
	if base != "" {
		u, err := url.Parse(base)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || strings.ContainsAny(base, "?#") {
			return "", usageErrorf("--url: %q is not a base URL like https://files.example.com", base)
		}
		return u.Scheme + "://" + u.Host, nil
	}
	host, port, err := net.SplitHostPort(c.endpoint)
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n >= 1<<16-1 {
		return "", usageErrorf("--url: give it, as the port %s says nothing of that of HTTP", shown(port))
	}
	scheme := "http"
	if c.tls {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(host, strconv.Itoa(n+1))), nil
}
