package iam

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

func TestRowsRoundTrip(t *testing.T) {
	w := newWorld(t)
	w.key("alice-reads").Comment, w.key("alice-reads").Expires, w.key("alice-reads").LastUsed = "backup", 7, 5
	w.rows.Boxes = []Box{w.master.Seal(make([]byte, 32))}
	b, err := w.rows.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Rows
	if rest, err := got.UnmarshalMsg(b); err != nil || len(rest) != 0 || !reflect.DeepEqual(got, w.rows) {
		t.Errorf("%+v, %v; want %+v", got, err, w.rows)
	}
	for n := range len(b) {
		if _, err := new(Rows).UnmarshalMsg(b[:n]); err == nil {
			t.Fatalf("read from %d of %d bytes", n, len(b))
		}
	}
}

// TestRowsLimits: a message over a limit is refused before anything is made for
// it.
func TestRowsLimits(t *testing.T) {
	one := func(field string, write func(b []byte) []byte) []byte {
		return write(msgp.AppendString(msgp.AppendMapHeader(nil, 1), field))
	}
	array := func(n uint32) func([]byte) []byte {
		return func(b []byte) []byte { return msgp.AppendArrayHeader(b, n) }
	}
	for name, tc := range map[string]struct {
		into msgp.Unmarshaler
		b    []byte
	}{
		"users":        {new(Rows), one("u", array(MaxUsers+1))},
		"keys":         {new(Rows), one("k", array(MaxKeys+1))},
		"boxes":        {new(Rows), one("b", array(65))},
		"grants":       {new(User), one("g", array(MaxGrants+1))},
		"own grants":   {new(Key), one("g", array(MaxGrants+1))},
		"certificates": {new(User), one("c", array(65))},
		"sealed":       {new(Key), one("k", func(b []byte) []byte { return msgp.AppendBytes(b, make([]byte, 257)) })},
		"box":          {new(Box), one("k", func(b []byte) []byte { return msgp.AppendBytes(b, make([]byte, 257)) })},
		"fingerprint":  {new(Box), one("f", func(b []byte) []byte { return msgp.AppendBytes(b, make([]byte, 33)) })},
	} {
		if _, err := tc.into.UnmarshalMsg(tc.b); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
