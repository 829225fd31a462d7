package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
)

// address is BUCKET/KEY as the user writes it. What names may hold is for the
// node to say; here it only matters what is bucket and what is key.
type address struct {
	bucket string
	key    string // may end in a slash, or be empty
}

// parseAddress splits at the first slash.
func parseAddress(text string) (address, error) {
	bucket, key, _ := strings.Cut(text, "/")
	if bucket == "" {
		return address{}, usageErrorf("%q has no bucket; an object is BUCKET/KEY", text)
	}
	return address{bucket, key}, nil
}

// parseObject is parseAddress for what must be a whole object.
func parseObject(text string) (address, error) {
	a, err := parseAddress(text)
	if err == nil && (a.key == "" || a.folder()) {
		err = usageErrorf("%q names no object; want BUCKET/KEY", text)
	}
	return a, err
}

// parseBucket is for what must be a bucket alone; a trailing slash is let
// pass, as completion leaves one.
func parseBucket(text string) (string, error) {
	a, err := parseAddress(text)
	if err == nil && a.key != "" {
		err = usageErrorf("%q is more than a bucket", text)
	}
	return a.bucket, err
}

// folder reports whether the address means "into this": a bucket alone, or a
// key with a slash at its end.
func (a address) folder() bool { return a.key == "" || strings.HasSuffix(a.key, "/") }

// prefix is what the keys below the address begin with: "" for a whole bucket,
// else with a slash at its end.
func (a address) prefix() string {
	if a.folder() {
		return a.key
	}
	return a.key + "/"
}

// into is the address itself, or where it means "into this", name below it.
func (a address) into(name string) address {
	if a.folder() {
		a.key += name
	}
	return a
}

// base is the last segment of the key.
func (a address) base() string { return path.Base(a.key) }

func (a address) String() string { return a.bucket + "/" + a.key }

// shown is a name as it is printed for people. One with anything in it that
// would not show as itself (a node can be wrong, and a terminal obeys) is
// quoted.
func shown(name string) string {
	for _, r := range name {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return fmt.Sprintf("%q", name)
		}
	}
	return name
}

// pairs parses k=v flags. A name given twice is an error.
func pairs(flag string, items []string) (map[string]string, error) {
	out := make(map[string]string, len(items))
	for _, item := range items {
		k, v, ok := strings.Cut(item, "=")
		if !ok || k == "" {
			return nil, usageErrorf("--%s: %q is not NAME=VALUE", flag, item)
		}
		if _, twice := out[k]; twice {
			return nil, usageErrorf("--%s: %s is given twice", flag, k)
		}
		out[k] = v
	}
	return out, nil
}

// etags are the entity tags of a condition flag, with or without quotes.
func etags(cmd *cobra.Command, flag string) ([]string, error) {
	tags, err := cmd.Flags().GetStringSlice(flag)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 && cmd.Flags().Changed(flag) {
		tags = []string{""}
	}
	for i, t := range tags {
		if tags[i] = strings.Trim(strings.TrimSpace(t), `"`); tags[i] == "" {
			return nil, usageErrorf("--%s: %w", flag, errors.New("an entity tag is empty"))
		}
	}
	return tags, nil
}
