package iam

import (
	"bytes"
	"errors"
	"testing"
)

func meshSecret(t *testing.T) []byte {
	t.Helper()
	b, err := ParseMeshSecret(NewMeshSecret())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMasterBoxes(t *testing.T) {
	a, b, c := meshSecret(t), meshSecret(t), meshSecret(t)
	m := NewMaster()
	boxes := []Box{m.Seal(a), m.Seal(b)}
	for _, secrets := range [][][]byte{{a}, {b}, {c, b}, {a, b, c}} {
		got, err := OpenMaster(boxes, secrets)
		if err != nil || !got.Equal(m) {
			t.Errorf("%v, %v", got, err)
		}
	}
	for name, tc := range map[string]struct {
		boxes   []Box
		secrets [][]byte
	}{
		"no box":          {nil, [][]byte{a}},
		"no secret":       {boxes, nil},
		"another secret":  {boxes, [][]byte{c}},
		"damaged":         {[]Box{{boxes[0].Fingerprint, flip(boxes[0].Sealed, 20)}}, [][]byte{a}},
		"other version":   {[]Box{{boxes[0].Fingerprint, flip(boxes[0].Sealed, 0)}}, [][]byte{a}},
		"cut":             {[]Box{{boxes[0].Fingerprint, boxes[0].Sealed[:12]}}, [][]byte{a}},
		"empty":           {[]Box{{boxes[0].Fingerprint, nil}}, [][]byte{a}},
		"another's":       {[]Box{{boxes[0].Fingerprint, boxes[1].Sealed}}, [][]byte{a}},
		"under its name":  {[]Box{{boxes[1].Fingerprint, boxes[0].Sealed}}, [][]byte{b}},
		"of another size": {[]Box{{Fingerprint(a), sealBytes(boxKey(a), []byte("short"), Fingerprint(a))}}, [][]byte{a}},
	} {
		if got, err := OpenMaster(tc.boxes, tc.secrets); !errors.Is(err, ErrMaster) || !got.IsZero() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if (Master{}).Equal(Master{}) || m.Equal(NewMaster()) {
		t.Error("different masters are equal")
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestRotateBoxes(t *testing.T) {
	a, b, c := meshSecret(t), meshSecret(t), meshSecret(t)
	m, boxes, changed, err := RotateBoxes(nil, [][]byte{a})
	if err != nil || !changed || len(boxes) != 1 || m.IsZero() {
		t.Fatalf("%v %d %t %v", m, len(boxes), changed, err)
	}
	for _, tc := range []struct {
		secrets [][]byte
		changed bool
		boxes   int
	}{
		{[][]byte{a}, false, 1},
		{[][]byte{a, a}, false, 1},
		{[][]byte{a, b}, true, 2}, // the new one is accepted
		{[][]byte{b, a}, false, 2},
		{[][]byte{b}, true, 1}, // the old one is gone
		{[][]byte{c, b}, true, 2},
		{[][]byte{c, a}, true, 2},
	} {
		got, next, changed, err := RotateBoxes(boxes, tc.secrets)
		if err != nil || !got.Equal(m) || changed != tc.changed || len(next) != tc.boxes {
			t.Fatalf("%v %d %t %v; want %t, %d", got, len(next), changed, err, tc.changed, tc.boxes)
		}
		for _, s := range tc.secrets {
			if got, err := OpenMaster(next, [][]byte{s}); err != nil || !got.Equal(m) {
				t.Fatalf("a secret doesn't open its box: %v", err)
			}
		}
		boxes = next
	}
	for name, secrets := range map[string][][]byte{"stranger": {b}, "none": nil, "too many": make([][]byte, MaxBoxes+1)} {
		got, next, changed, err := RotateBoxes(boxes, secrets)
		if !errors.Is(err, ErrMaster) || changed || next != nil || !got.IsZero() {
			t.Errorf("%s: %v %v %t %v", name, got, next, changed, err)
		}
	}
}

// TestSealKey: what is kept of a key is good for that row alone, is different
// each time, and isn't what links are signed with.
func TestSealKey(t *testing.T) {
	m, c := NewMaster(), Generate("k")
	sealed := m.SealKey(c, "u")
	if len(sealed) != sealedKeyBytes || bytes.Equal(sealed, m.SealKey(c, "u")) {
		t.Error("sealed alike")
	}
	derived := linkKey(c)
	if bytes.Contains(sealed, derived[:8]) || bytes.Contains(sealed, c.secret.bytes[:8]) {
		t.Error("the secret shows")
	}
	got, err := openBytes(m.keySeal(), sealed, keyContext("k", "u"))
	if err != nil || !bytes.Equal(got, derived[:]) {
		t.Errorf("%v", err)
	}
	for _, context := range [][]byte{keyContext("k", "v"), keyContext("l", "u"), keyContext("ku", ""), nil} {
		if _, err := openBytes(m.keySeal(), sealed, context); err == nil {
			t.Errorf("opened as %q", context)
		}
	}
	for i := range sealed {
		if _, err := openBytes(m.keySeal(), flip(sealed, i), keyContext("k", "u")); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
	w := newWorld(t)
	if b, err := w.gate.SealKey(c, "u"); err != nil || len(b) != sealedKeyBytes {
		t.Error(err)
	}
	if a, b := NewKeyID(), NewKeyID(); a == b || ValidateID(a) != nil {
		t.Error(a, b)
	}
}

// TestLabels: nothing that is derived is derived under the same name.
func TestLabels(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range []string{fingerprintLabel, boxLabel, keySealLabel, tokenLabel, linkLabel} {
		if seen[l] {
			t.Errorf("%q twice", l)
		}
		seen[l] = true
	}
	secret := make([]byte, 32)
	if got := mac(secret, tokenLabel); bytes.Equal(got, derive(secret, keySealLabel)) || bytes.Equal(got, mac(secret, linkLabel)) {
		t.Error("derived alike")
	}
}
