package object

import (
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/fault"
)

// TestConditions goes through RFC 9110, 13.2.2, step by step. kindOK stands
// for "goes on".
func TestConditions(t *testing.T) {
	const kindOK = fault.Internal
	modified := time.Date(2026, 11, 22, 10, 0, 0, 5e8, time.UTC)
	at := modified.Truncate(time.Second)
	before, after := at.Add(-time.Second), at.Add(time.Second)
	info := &Info{ETag: "abc", ModifiedAt: modified}
	for name, c := range map[string]struct {
		c           Conditions
		read, write fault.Kind
	}{
		"none": {Conditions{}, kindOK, kindOK},

		"if-match":                       {Conditions{IfMatch: []string{"x", "abc"}}, kindOK, kindOK},
		"if-match any":                   {Conditions{IfMatch: []string{"*"}}, kindOK, kindOK},
		"if-match other":                 {Conditions{IfMatch: []string{"x"}}, fault.PreconditionFailed, fault.PreconditionFailed},
		"if-match is strong":             {Conditions{IfMatch: []string{"W/abc"}}, fault.PreconditionFailed, fault.PreconditionFailed},
		"if-match before unmodified":     {Conditions{IfMatch: []string{"abc"}, IfUnmodifiedSince: before}, kindOK, kindOK},
		"unmodified since then":          {Conditions{IfUnmodifiedSince: at}, kindOK, kindOK},
		"unmodified since before":        {Conditions{IfUnmodifiedSince: before}, fault.PreconditionFailed, fault.PreconditionFailed},
		"if-none-match":                  {Conditions{IfNoneMatch: []string{"abc"}}, fault.NotModified, fault.PreconditionFailed},
		"if-none-match any":              {Conditions{IfNoneMatch: []string{"*"}}, fault.NotModified, fault.PreconditionFailed},
		"if-none-match is weak":          {Conditions{IfNoneMatch: []string{"W/abc"}}, fault.NotModified, fault.PreconditionFailed},
		"if-none-match other":            {Conditions{IfNoneMatch: []string{"x"}}, kindOK, kindOK},
		"if-none-match before modified":  {Conditions{IfNoneMatch: []string{"x"}, IfModifiedSince: after}, kindOK, kindOK},
		"modified since before":          {Conditions{IfModifiedSince: before}, kindOK, kindOK},
		"modified since then":            {Conditions{IfModifiedSince: at}, fault.NotModified, kindOK},
		"modified since later":           {Conditions{IfModifiedSince: after}, fault.NotModified, kindOK},
		"match and none-match both hold": {Conditions{IfMatch: []string{"abc"}, IfNoneMatch: []string{"x"}}, kindOK, kindOK},
		"match fails first":              {Conditions{IfMatch: []string{"x"}, IfNoneMatch: []string{"abc"}}, fault.PreconditionFailed, fault.PreconditionFailed},
		"unmodified fails first":         {Conditions{IfUnmodifiedSince: before, IfNoneMatch: []string{"abc"}}, fault.PreconditionFailed, fault.PreconditionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.c.checkRead(info)
			if fault.KindOf(err) != c.read || (err == nil) != (c.read == kindOK) {
				t.Errorf("read: %v, want %v", err, c.read)
			}
			if got := InfoOf(err); (got == info) != (c.read == fault.NotModified) {
				t.Errorf("InfoOf(%v) = %v", err, got)
			}
			if err := c.c.checkWrite(info); fault.KindOf(err) != c.write || (err == nil) != (c.write == kindOK) {
				t.Errorf("write: %v, want %v", err, c.write)
			}
		})
	}
	missing := Conditions{IfMatch: []string{"*"}}
	wantFault(t, missing.checkWrite(nil), fault.PreconditionFailed, "if_match")
	create := Conditions{IfNoneMatch: []string{"*"}, IfUnmodifiedSince: before}
	if err := create.checkWrite(nil); err != nil {
		t.Errorf("if-none-match without an object: %v", err)
	}
}
