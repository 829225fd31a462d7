package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// printer writes results to standard output. It may be used by many goroutines
// at once; each result stays whole.
type printer struct {
	json   bool
	before func() // called before each result

	mu sync.Mutex // keeps each result whole
	w  io.Writer
}

// print writes v as a line of JSON, or as the text that text gives.
func (p *printer) print(v any, text func() string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before()
	if p.json {
		enc := json.NewEncoder(p.w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	_, err := io.WriteString(p.w, text())
	return err
}

// The JSON shapes below are part of the program's interface: fields may be
// added, and none changes its meaning. Times are RFC 3339, sizes are bytes,
// checksums hexadecimal; what is unknown or empty is left out.

// jsonObject describes an object.
type jsonObject struct {
	Type               string            `json:"type"` // "object"
	Bucket             string            `json:"bucket"`
	Key                string            `json:"key"`
	Size               int64             `json:"size"`
	ETag               string            `json:"etag"`
	ModifiedAt         string            `json:"modified_at"`
	ContentType        string            `json:"content_type,omitempty"`
	CacheControl       string            `json:"cache_control,omitempty"`
	ContentDisposition string            `json:"content_disposition,omitempty"`
	ContentEncoding    string            `json:"content_encoding,omitempty"`
	ContentLanguage    string            `json:"content_language,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	SHA256             string            `json:"sha256,omitempty"`
	CRC32C             string            `json:"crc32c,omitempty"`
	CRC64NVME          string            `json:"crc64nvme,omitempty"`
	// What put and get add: the file on this side ("-" for a stream), and, for
	// a part of an object, which.
	File   string `json:"file,omitempty"`
	Offset *int64 `json:"offset,omitempty"`
	Length *int64 `json:"length,omitempty"`
}

func toJSON(o *gridloomv1.Object) jsonObject {
	j := jsonObject{
		Type: "object", Bucket: o.GetBucket(), Key: o.GetKey(), Size: o.GetSize(), ETag: o.GetEtag(),
		ModifiedAt:  stamp(o.GetModifiedAt().AsTime()),
		ContentType: o.GetContentType(), CacheControl: o.GetCacheControl(),
		ContentDisposition: o.GetContentDisposition(), ContentEncoding: o.GetContentEncoding(),
		ContentLanguage: o.GetContentLanguage(), Metadata: o.GetMetadata(),
	}
	for _, c := range o.GetChecksums() {
		value := hex.EncodeToString(c.GetValue())
		switch c.GetAlgorithm() {
		case gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_SHA256:
			j.SHA256 = value
		case gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC32C:
			j.CRC32C = value
		case gridloomv1.ChecksumAlgorithm_CHECKSUM_ALGORITHM_CRC64NVME:
			j.CRC64NVME = value
		}
	}
	return j
}

// jsonBucket describes a bucket.
type jsonBucket struct {
	Type      string `json:"type"` // "bucket"
	Bucket    string `json:"bucket"`
	CreatedAt string `json:"created_at,omitempty"`
	Removed   bool   `json:"removed,omitempty"`
}

// jsonPrefix is a folder in a list: what its keys begin with.
type jsonPrefix struct {
	Type   string `json:"type"` // "prefix"
	Bucket string `json:"bucket"`
	Prefix string `json:"prefix"`
}

// jsonNext is the last line of a list that has more than was asked for.
type jsonNext struct {
	Type      string `json:"type"` // "next"
	PageToken string `json:"page_token"`
}

// jsonRemoved is an object that was removed.
type jsonRemoved struct {
	Type   string `json:"type"` // "removed"
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
}

// stamp is a time as it is printed: UTC, to the nanosecond where there is one.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// seconds is a time in a column.
func seconds(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// details is an object as stat prints it.
func details(j jsonObject) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-21s%s\n", name+":", shown(value))
		}
	}
	line("Bucket", j.Bucket)
	line("Key", j.Key)
	line("Size", sizeText(j.Size))
	line("Modified", j.ModifiedAt)
	line("ETag", j.ETag)
	line("Content-Type", j.ContentType)
	line("Cache-Control", j.CacheControl)
	line("Content-Disposition", j.ContentDisposition)
	line("Content-Encoding", j.ContentEncoding)
	line("Content-Language", j.ContentLanguage)
	line("SHA-256", j.SHA256)
	line("CRC32C", j.CRC32C)
	line("CRC64NVME", j.CRC64NVME)
	for _, name := range slices.Sorted(maps.Keys(j.Metadata)) {
		line("Metadata "+name, j.Metadata[name])
	}
	return b.String()
}

// sizeText is a size for people and, where that rounds, in bytes.
func sizeText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%s (%d bytes)", byteSize(n), n)
}
