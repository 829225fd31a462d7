package control

import (
	"maps"
	"slices"

	"github.com/tinylib/msgp/msgp"
)

// Pairs is a map[string]string that is encoded in the order of its keys: the
// same record is the same bytes on every node, and so the state's checksum
// can be compared.
type Pairs map[string]string

// maxPairs bounds the number of pairs that are decoded, before their sizes
// are known.
const maxPairs = 4096

// sizeBytes is the length of all keys and values together.
func (p Pairs) sizeBytes() int {
	n := 0
	for k, v := range p {
		n += len(k) + len(v)
	}
	return n
}

// Msgsize implements msgp.Sizer.
func (p Pairs) Msgsize() int {
	n := msgp.MapHeaderSize
	for k, v := range p {
		n += 2*msgp.StringPrefixSize + len(k) + len(v)
	}
	return n
}

// MarshalMsg implements msgp.Marshaler.
func (p Pairs) MarshalMsg(b []byte) ([]byte, error) {
	b = msgp.Require(b, p.Msgsize())
	b = msgp.AppendMapHeader(b, uint32(len(p)))
	for _, k := range slices.Sorted(maps.Keys(p)) {
		b = msgp.AppendString(b, k)
		b = msgp.AppendString(b, p[k])
	}
	return b, nil
}

// UnmarshalMsg implements msgp.Unmarshaler. An empty map becomes nil.
func (p *Pairs) UnmarshalMsg(b []byte) ([]byte, error) {
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return b, err
	}
	if n > maxPairs {
		return b, msgp.ErrLimitExceeded
	}
	*p = nil
	if n > 0 {
		*p = make(Pairs, min(n, 64))
	}
	for range n {
		var k, v string
		if k, b, err = msgp.ReadStringBytes(b); err != nil {
			return b, err
		}
		if v, b, err = msgp.ReadStringBytes(b); err != nil {
			return b, err
		}
		(*p)[k] = v
	}
	return b, nil
}
