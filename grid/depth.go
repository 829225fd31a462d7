package grid

import "encoding/binary"

// maxDepth bounds the nesting of typed messages. The decoder's own limit is
// far beyond what a goroutine's stack should be asked for.
const maxDepth = 64

var errDepth = &RemoteError{Code: CodeMalformed, Message: "malformed message: nested too deeply"}

// checkDepth walks the msgpack values in b without recursion and refuses deep
// nesting. What is cut short or unknown it leaves to the decoder.
func checkDepth(b []byte) error {
	var open [maxDepth]uint64 // values still to come at each level
	depth := 0
	for len(b) > 0 {
		size, children := measure(b)
		if size > uint64(len(b)) {
			return nil
		}
		b = b[size:]
		if children > 0 {
			if depth == maxDepth {
				return errDepth
			}
			open[depth] = children
			depth++
			continue
		}
		for depth > 0 {
			if open[depth-1]--; open[depth-1] > 0 {
				break
			}
			depth--
		}
	}
	return nil
}

// measure gives the bytes of the value at the start of b, without its
// children, and how many children follow.
func measure(b []byte) (size, children uint64) {
	c := b[0]
	switch {
	case c <= 0x7f || c >= 0xe0: // fixint
		return 1, 0
	case c <= 0x8f: // fixmap
		return 1, 2 * uint64(c&0x0f)
	case c <= 0x9f: // fixarray
		return 1, uint64(c & 0x0f)
	case c <= 0xbf: // fixstr
		return 1 + uint64(c&0x1f), 0
	}
	if s := scalarSize[c-0xc0]; s != 0 {
		return uint64(s), 0
	}
	width := lengthWidth[c-0xc0]
	if len(b) < 1+int(width) {
		return 1 << 40, 0
	}
	var n uint64
	switch width {
	case 1:
		n = uint64(b[1])
	case 2:
		n = uint64(binary.BigEndian.Uint16(b[1:]))
	case 4:
		n = uint64(binary.BigEndian.Uint32(b[1:]))
	}
	head := 1 + uint64(width)
	switch {
	case c >= 0xde:
		return head, 2 * n
	case c >= 0xdc:
		return head, n
	case c >= 0xc7 && c <= 0xc9: // ext: a type byte more
		return head + 1 + n, 0
	}
	return head + n, 0
}

// scalarSize is the whole size of the types from 0xc0 on; 0 for those with a
// length.
var scalarSize = [32]uint8{
	0x00: 1, 0x01: 1, 0x02: 1, 0x03: 1,
	0x0a: 5, 0x0b: 9,
	0x0c: 2, 0x0d: 3, 0x0e: 5, 0x0f: 9,
	0x10: 2, 0x11: 3, 0x12: 5, 0x13: 9,
	0x14: 3, 0x15: 4, 0x16: 6, 0x17: 10, 0x18: 18,
}

// lengthWidth is how many bytes the length of those takes.
var lengthWidth = [32]uint8{
	0x04: 1, 0x05: 2, 0x06: 4, 0x07: 1, 0x08: 2, 0x09: 4,
	0x19: 1, 0x1a: 2, 0x1b: 4, 0x1c: 2, 0x1d: 4, 0x1e: 2, 0x1f: 4,
}
