package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gridloom/gridloom/node"
)

// byteSize is a number of bytes, written with or without a binary unit.
type byteSize int64

var byteUnits = []struct {
	suffix string
	shift  uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// Set parses "1073741824", "1GiB" or "1.5 GiB".
func (b *byteSize) Set(text string) error {
	number, shift := text, uint(0)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, shift = strings.TrimSpace(n), u.shift
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64>>shift {
			return errors.New("is out of range")
		}
		*b = byteSize(n << shift)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || shift == 0 {
		return errors.New("is not a size: bytes, or a number with KiB, MiB, GiB or TiB")
	}
	if f *= float64(int64(1) << shift); !(f >= 0 && f < math.MaxInt64) {
		return errors.New("is out of range")
	}
	*b = byteSize(f)
	return nil
}

// String writes a size with at most one digit after the point.
func (b byteSize) String() string {
	for _, u := range byteUnits {
		if b >= 1<<u.shift {
			s := strconv.FormatFloat(float64(b)/float64(int64(1)<<u.shift), 'f', 1, 64)
			return strings.TrimSuffix(s, ".0") + " " + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }

// maxStale is how old an answer may be allowed to be, at most.
const maxStale = time.Hour

// age is how old an answer may be: a duration from 0, which is none older than
// the question.
type age time.Duration

// Set parses "5s" or "1m30s".
func (g *age) Set(text string) error {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return errors.New("is not a duration like 5s")
	case d < 0, d > maxStale:
		return errors.New("is not between 0s and 1h")
	}
	*g = age(d)
	return nil
}

// String is empty for 0, so that help shows no default.
func (g *age) String() string {
	if *g == 0 {
		return ""
	}
	return time.Duration(*g).String()
}

// Type implements pflag.Value.
func (*age) Type() string { return "age" }

// proto is the age as a request has it.
func (g *age) proto() *durationpb.Duration {
	if *g == 0 {
		return nil
	}
	return durationpb.New(time.Duration(*g))
}

// staleFlag adds --stale to a command that reads.
func staleFlag(cmd *cobra.Command) *age {
	var g age
	cmd.Flags().Var(&g, "stale", "take an answer up to `AGE` old (5s, at most 1h), which the node may have by itself")
	return &g
}

// lifetime is how long something is good for; 0 is for ever.
type lifetime time.Duration

// maxLifetimeDays is a hundred years: longer than that is a mistake.
const maxLifetimeDays = 36500

// Set parses "30d", what time.ParseDuration takes, or "never".
func (l *lifetime) Set(text string) error {
	if text == "never" {
		*l = 0
		return nil
	}
	var d time.Duration
	if number, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.Atoi(number)
		if err != nil {
			return errors.New("is not a duration like 30d or 12h")
		}
		if days > maxLifetimeDays || days < -maxLifetimeDays {
			return fmt.Errorf("is not between 1s and %dd", maxLifetimeDays)
		}
		d = time.Duration(days) * 24 * time.Hour
	} else {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return errors.New("is not a duration like 30d or 12h")
		}
	}
	if d < time.Second || d > maxLifetimeDays*24*time.Hour {
		return fmt.Errorf("is not between 1s and %dd", maxLifetimeDays)
	}
	*l = lifetime(d)
	return nil
}

// String is empty for 0, so that help shows no default.
func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

// Type implements pflag.Value.
func (*lifetime) Type() string { return "lifetime" }

// at is when what is good for so long from now on expires; nil for never.
func (l *lifetime) at(now time.Time) *timestamppb.Timestamp {
	if *l == 0 {
		return nil
	}
	return timestamppb.New(now.Add(time.Duration(*l)))
}

// expiresFlag adds --expires to a command.
func expiresFlag(cmd *cobra.Command, usage string) *lifetime {
	var l lifetime
	cmd.Flags().Var(&l, "expires", usage)
	return &l
}

// peerList is NAME=URL,NAME=URL,…
type peerList []node.Peer

// Set adds one or more peers.
func (l *peerList) Set(text string) error {
	for item := range strings.SplitSeq(text, ",") {
		if err := l.Append(item); err != nil {
			return err
		}
	}
	return nil
}

// Append adds one peer. Whether its parts make sense is node.Config's to say.
func (l *peerList) Append(item string) error {
	name, url, ok := strings.Cut(strings.TrimSpace(item), "=")
	if !ok || name == "" || url == "" {
		return fmt.Errorf("is not NAME=URL,NAME=URL,... with URLs like http://10.0.0.1:7402")
	}
	*l = append(*l, node.Peer{Name: name, URL: url})
	return nil
}

// String implements pflag.Value.
func (l *peerList) String() string {
	parts := make([]string, len(*l))
	for i, p := range *l {
		parts[i] = p.Name + "=" + p.URL
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (*peerList) Type() string { return "peers" }
