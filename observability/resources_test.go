package observability

import (
	"reflect"
	"testing"
)

func TestResourcesCrossTheWire(t *testing.T) {
	want := exampleResources("a")
	encoded, err := want.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(encoded))
	var got Resources
	rest, err := got.UnmarshalMsg(encoded)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%v, %d bytes left", err, len(rest))
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", got, *want)
	}
}

func FuzzResources(f *testing.F) {
	encoded, err := exampleResources("a").MarshalMsg(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte{0x81, 0xa6, 'd', 'r', 'i', 'v', 'e', 's', 0xdd, 0xff, 0xff, 0xff, 0xff}) // 4 G drives
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Resources
		if _, err := r.UnmarshalMsg(b); err != nil {
			return
		}
		again, err := r.MarshalMsg(nil)
		if err != nil {
			t.Fatal(err)
		}
		var second Resources
		if _, err := second.UnmarshalMsg(again); err != nil {
			t.Fatalf("what was encoded can't be decoded: %v", err)
		}
	})
}
