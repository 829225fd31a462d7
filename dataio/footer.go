package dataio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A payload file is the payload, then a footer, all integers little-endian:
//
//	4 × ceil(size / 1 MiB)  CRC32C of each MiB of payload; the last may be short
//	16                      payload id, the same as the file's name
//	8                       size of the payload
//	4                       CRC32C of the whole payload
//	4                       size of a block: 1 MiB
//	4                       size of the footer, all of it
//	4                       CRC32C of the footer up to here
//	8                       magic, the last byte is the version
//
// The footer stands after the payload so that the file is written front to
// back, is durable by one sync, and sendfile sends the payload from offset 0.
// A file that was not written to its end has no valid footer, and is none.
const (
	blockBytes    = 1 << 20
	trailerBytes  = 48
	footerMagic   = "glpayld"
	footerVersion = '1'
)

// footer is what the footer of a payload file says.
type footer struct {
	id     ID
	size   int64    // bytes of payload
	total  uint32   // CRC32C of the payload
	blocks []uint32 // CRC32C of each MiB
}

// footerBytes returns the size of the footer of a payload of size bytes.
func footerBytes(size int64) int64 {
	return 4*((size+blockBytes-1)/blockBytes) + trailerBytes
}

func (f footer) encode() []byte {
	b := make([]byte, 0, footerBytes(f.size))
	for _, sum := range f.blocks {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	b = append(b, f.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.size))
	b = binary.LittleEndian.AppendUint32(b, f.total)
	b = binary.LittleEndian.AppendUint32(b, blockBytes)
	b = binary.LittleEndian.AppendUint32(b, uint32(footerBytes(f.size)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = append(b, footerMagic...)
	return append(b, footerVersion)
}

// footerSize reads from a trailer, the last trailerBytes of a file of
// fileBytes, how long the footer is. Nothing else of it is believed before
// parseFooter has compared the checksum.
func footerSize(trailer []byte, fileBytes int64) (int64, error) {
	corrupted := func(format string, args ...any) (int64, error) {
		return 0, &Error{Kind: ErrCorrupted, Err: fmt.Errorf("footer: "+format, args...)}
	}
	if len(trailer) != trailerBytes {
		return corrupted("the file has %d bytes, fewer than a footer", fileBytes)
	}
	magic := trailer[40:]
	if !bytes.HasPrefix(magic, []byte(footerMagic)) {
		return corrupted("no magic: the file was not written to its end")
	}
	if version := magic[len(footerMagic)]; version != footerVersion {
		return 0, &Error{Kind: ErrUnknownFormat, Err: fmt.Errorf("footer: version %q, this program reads %q", version, footerVersion)}
	}
	size := binary.LittleEndian.Uint64(trailer[16:])
	if size > MaxPayloadBytes {
		return corrupted("payload of %d bytes", size)
	}
	if block := binary.LittleEndian.Uint32(trailer[28:]); block != blockBytes {
		return corrupted("blocks of %d bytes", block)
	}
	length := footerBytes(int64(size))
	if stated := binary.LittleEndian.Uint32(trailer[32:]); length > math.MaxUint32 || uint32(length) != stated {
		return corrupted("%d bytes long, want %d", stated, length)
	}
	if fileBytes != int64(size)+length {
		return corrupted("the file has %d bytes, want %d of payload and %d of footer", fileBytes, size, length)
	}
	return length, nil
}

// parseFooter parses the whole footer of payload id, as footerSize measured it.
func parseFooter(b []byte, id ID) (footer, error) {
	corrupted := func(format string, args ...any) (footer, error) {
		return footer{}, &Error{Kind: ErrCorrupted, Err: fmt.Errorf("footer: "+format, args...)}
	}
	if len(b) < trailerBytes {
		return corrupted("%d bytes", len(b))
	}
	end := len(b) - trailerBytes
	trailer := b[end:]
	if sum := crc32.Checksum(b[:end+36], castagnoli); sum != binary.LittleEndian.Uint32(trailer[36:]) {
		return corrupted("its checksum doesn't match")
	}
	f := footer{
		id:     ID(trailer[:16]),
		size:   int64(binary.LittleEndian.Uint64(trailer[16:])),
		total:  binary.LittleEndian.Uint32(trailer[24:]),
		blocks: make([]uint32, end/4),
	}
	if f.id != id {
		return corrupted("it is of payload %s", f.id)
	}
	for i := range f.blocks {
		f.blocks[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return f, nil
}
