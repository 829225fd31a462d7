package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/minio/crc64nvme"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// errChecksum is in every error of bytes that are not the ones stored.
var errChecksum = errors.New("checksum mismatch")

// checksums are the ones that are sent with an object and looked for on one
// that comes.
type checksums struct {
	sha256 hash.Hash
	crc64  hash.Hash64
}

func newChecksums() *checksums { return &checksums{sha256.New(), crc64nvme.New()} }

// Write implements io.Writer; it does not fail.
func (c *checksums) Write(p []byte) (int, error) {
	c.sha256.Write(p)
	c.crc64.Write(p)
	return len(p), nil
}

func (c *checksums) values() []*gridloomv1.Checksum {
	return []*gridloomv1.Checksum{
		{Algorithm: gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256, Value: c.sha256.Sum(nil)},
		{Algorithm: gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME, Value: binary.BigEndian.AppendUint64(nil, c.crc64.Sum64())},
	}
}

// algorithmNames are the algorithms of --checksum.
const algorithmNames = "sha256, sha512, md5, crc32c and crc64nvme"

// parseChecksum reads ALGORITHM=HEX. How long the sum is to be is for the node to
// say.
func parseChecksum(text string) (*gridloomv1.Checksum, error) {
	name, digits, _ := strings.Cut(text, "=")
	c := &gridloomv1.Checksum{}
	switch name {
	case "sha256":
		c.Algorithm = gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256
	case "sha512":
		c.Algorithm = gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA512
	case "md5":
		c.Algorithm = gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_MD5
	case "crc32c":
		c.Algorithm = gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C
	case "crc64nvme":
		c.Algorithm = gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME
	default:
		return nil, usageErrorf("--checksum: %q is not ALGORITHM=HEX with one of %s", text, algorithmNames)
	}
	var err error
	if c.Value, err = hex.DecodeString(digits); err != nil || digits == "" {
		return nil, usageErrorf("--checksum: %q has no hex digits after the algorithm", text)
	}
	return c, nil
}

// verify compares with those of an object's checksums that are known here.
func (c *checksums) verify(o *gridloomv1.Object) error {
	for _, mine := range c.values() {
		for _, its := range o.GetChecksums() {
			if its.GetAlgorithm() == mine.GetAlgorithm() && !bytes.Equal(its.GetValue(), mine.GetValue()) {
				return fmt.Errorf("%w: what came has %x, and the object %x", errChecksum, mine.GetValue(), its.GetValue())
			}
		}
	}
	return nil
}
