package dataio

import (
	"bytes"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
)

// TestFooterIsPinned keeps the format: files that are written today are read by
// every later version.
func TestFooterIsPinned(t *testing.T) {
	id, err := ParseID("00112233-4455-6677-8899-aabbccddeeff")
	if err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(footer{id: id, size: 1<<20 + 3, total: 0xa1a2a3a4, blocks: []uint32{0xb1b2b3b4, 0xc1c2c3c4}}.encode())
	const want = "b4b3b2b1" + "c4c3c2c1" + // sums of the blocks
		"00112233445566778899aabbccddeeff" + // id
		"0300100000000000" + "a4a3a2a1" + "00001000" + // size, sum, block size
		"38000000" + "PINNED__" + // size of the footer, its sum
		"676c7061796c6431" // magic
	sum := got[len(got)-24 : len(got)-16]
	if got[:len(got)-24]+"PINNED__"+got[len(got)-16:] != want {
		t.Errorf("footer is\n%s, want\n%s", got, want)
	}
	raw, err := hex.DecodeString(got[:len(got)-24])
	if err != nil {
		t.Fatal(err)
	}
	crc := crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
	if want := hex.EncodeToString([]byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)}); sum != want {
		t.Errorf("the footer's sum is %s, want %s", sum, want)
	}
}

// FuzzFooter: whatever is parsed without an error is a footer that encodes to
// the same bytes, of the payload that was asked for.
func FuzzFooter(f *testing.F) {
	id := ID{1, 2, 3}
	for _, seed := range []footer{{id: id}, {id: id, size: 5, total: 7, blocks: []uint32{7}}, {id: id, size: 3 << 20, blocks: make([]uint32, 3)}} {
		b := seed.encode()
		f.Add(b, seed.size)
		f.Add(b[1:], seed.size)
		b[len(b)-20]++
		f.Add(b, seed.size)
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		file := size + int64(len(b))
		length, err := footerSize(b[max(0, len(b)-trailerBytes):], file)
		if err != nil {
			wantKind(t, err, ErrCorrupted, ErrUnknownFormat)
			return
		}
		if length > int64(len(b)) {
			return // the file has more of it
		}
		b = b[int64(len(b))-length:]
		got, err := parseFooter(b, id)
		if err != nil {
			wantKind(t, err, ErrCorrupted)
			return
		}
		if !bytes.Equal(got.encode(), b) || got.id != id || got.size+length != file {
			t.Errorf("%x parsed as %+v", b, got)
		}
	})
}

// FuzzIdentity: whatever is parsed without an error is complete, and is the
// same after it was encoded.
func FuzzIdentity(f *testing.F) {
	id := identity{Version: 1, ID: NewID().String(), Deployment: "d", Node: "n"}
	b := id.encode()
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(bytes.Replace(b, []byte("1"), []byte("2"), 1))
	f.Add([]byte(`{"version":1,"ID":"x","node":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseIdentity(b)
		if err != nil {
			wantKind(t, err, ErrUnknownFormat)
			return
		}
		again, err := parseIdentity(got.encode())
		if err != nil || again != got || got.Deployment == "" || got.Node == "" || got.Version != 1 {
			t.Errorf("%q parsed as %+v, and again as %+v (%v)", b, got, again, err)
		}
	})
}

// FuzzParseID: an id has one form.
func FuzzParseID(f *testing.F) {
	f.Add(NewID().String())
	f.Add("00112233-4455-6677-8899-AABBCCDDEEFF")
	f.Add("00112233445566778899aabbccddeeff----")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Errorf("%q parsed as %s", s, id)
		}
	})
}

func TestNewID(t *testing.T) {
	seen := map[ID]bool{}
	for range 1000 {
		id := NewID()
		if back, err := ParseID(id.String()); back != id || err != nil {
			t.Fatalf("%s parsed as %s (%v)", id, back, err)
		}
		if s := id.String(); seen[id] || s[14] != '4' || !slices.Contains([]byte("89ab"), s[19]) {
			t.Fatalf("%s is no new version 4 UUID", s)
		}
		seen[id] = true
	}
}

// wantKind fails the test unless err is one of the kinds.
func wantKind(t *testing.T, err error, kinds ...error) {
	t.Helper()
	if !slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) }) {
		t.Errorf("error is %v, want one of %v", err, kinds)
	}
}
