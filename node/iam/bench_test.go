package iam

import (
	"fmt"
	"testing"
)

// BenchmarkVerify has 10,000 users with ten keys each.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	sealed := w.key("bob").Sealed // not theirs: they are there to be passed over
	for i := range MaxUsers - 2 {
		name := fmt.Sprintf("user-%05d", i)
		w.rows.Users = append(w.rows.Users, User{Name: name, Grants: grants("readwrite:photos")})
		for j := range 10 {
			w.rows.Keys = append(w.rows.Keys, Key{ID: fmt.Sprintf("%s-%d", name, j), User: name, Sealed: sealed})
		}
	}
	w.publish(b)
	link := w.link(b, w.keys["alice"], LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a.jpg"})
	for name, r := range map[string]Request{
		"root":        {Authorization: "Bearer " + w.root.String()},
		"key":         {Authorization: "Bearer " + w.keys["alice"].String()},
		"service":     {Authorization: "Bearer " + w.keys["alice-reads"].String()},
		"token":       {Authorization: "Bearer " + w.token(b, w.keys["alice"])},
		"link":        {Link: link},
		"certificate": {Certificate: []string{"bob.example"}},
	} {
		r.Now, r.Addr, r.Door = w.now, "10.0.0.7:41000", "http"
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.gate.Verify(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, id := range map[string]string{"refused/known": "alice", "refused/unknown": "nobody"} {
		r := Request{Authorization: "Bearer " + Generate(id).String(), Now: w.now}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.gate.Verify(r); err == nil {
					b.Fatal("a wrong secret got in")
				}
			}
		})
	}
	b.Run("authorize", func(b *testing.B) {
		p := w.mustBearer(b, w.keys["alice-reads"].String())
		b.ReportAllocs()
		for b.Loop() {
			if !Allowed(p, ObjectRead, "photos", "2026/a.jpg") {
				b.Fatal("refused")
			}
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := NewSnapshot(&w.rows, w.master); err != nil {
				b.Fatal(err)
			}
		}
	})
}
