package iam

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// signed makes a link's path and query. Without an end it is good for an hour.
func (w *world) signed(t testing.TB, c Credential, r LinkRequest) string {
	t.Helper()
	if r.Expires.IsZero() {
		r.Expires = w.now.Add(time.Hour)
	}
	link, err := SignLink(c, testMesh, r, w.now)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func (w *world) link(t testing.TB, c Credential, r LinkRequest) *Link {
	t.Helper()
	path, query, _ := strings.Cut(w.signed(t, c, r), "?")
	l, err := ParseLink(r.Method, path, query, headers(r.Headers))
	if err != nil || l == nil {
		t.Fatalf("%v, %v", l, err)
	}
	return l
}

func headers(pairs [][2]string) func(string) []string {
	return func(name string) (values []string) {
		for _, p := range pairs {
			if strings.EqualFold(p[0], name) {
				values = append(values, p[1])
			}
		}
		return values
	}
}

// use is what a door does with a request for bytes.
func (w *world) use(method, link string, sent [][2]string) (Principal, error) {
	path, query, _ := strings.Cut(link, "?")
	l, err := ParseLink(method, path, query, headers(sent))
	if err != nil {
		return Principal{}, err
	}
	return w.gate.Verify(Request{Link: l, Addr: "a", Door: "http", Now: w.now})
}

func TestLink(t *testing.T) {
	w := newWorld(t)
	key := "2026/ä b+%/c?.jpg"
	link := w.signed(t, w.keys["bob"], LinkRequest{Method: "GET", Bucket: "photos", Key: key, Query: "stale=5s&x=a%20b"})
	for _, method := range []string{"GET", "HEAD"} {
		p, err := w.use(method, link, nil)
		if err != nil || p.ID != "bob" || p.User != "bob" || p.Via != ViaLink || !p.ExpiresAt.Equal(w.now.Add(time.Hour)) {
			t.Fatalf("%s: %+v, %v", method, p, err)
		}
		if err := Authorize(p, ObjectRead, "photos", key); err != nil {
			t.Error(err)
		}
		for _, a := range allActions {
			if Allowed(p, a, "photos", key) != (a == ObjectRead) || Allowed(p, a, "photos", "2026/other") || Allowed(p, a, "videos", key) || Allowed(p, a, "", "") {
				t.Errorf("%s is allowed with a link", a)
			}
		}
		if _, ok := p.ContentDigest(); ok {
			t.Error("a digest from nowhere")
		}
	}
	path, query, _ := strings.Cut(link, "?")
	l, err := ParseLink("GET", path, query, nil)
	if err != nil || l.Query != "stale=5s&x=a+b" || l.KeyID() != "bob" {
		t.Errorf("%v %v", l, err)
	}
	// Parameters in another order, or escaped in another way, are the same.
	parts := strings.Split(query, "&")
	parts[0], parts[3] = parts[3], parts[0]
	if _, err := w.use("GET", path+"?"+strings.Join(parts, "&&"), nil); err != nil {
		t.Error(err)
	}
	if _, err := w.use("GET", strings.Replace(link, "gl-key=bob", "%67l-key=b%6Fb", 1), nil); err != nil {
		t.Error(err)
	}
}

// TestLinkRights: a link does what its key may at the time it is used.
func TestLinkRights(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		by, method, key string
		action          Action
		want            bool
	}{
		{"alice", "PUT", "a", ObjectWrite, true},
		{"alice", "DELETE", "a", ObjectDelete, true},
		{"alice", "GET", "a", ObjectRead, true},
		{"alice-reads", "GET", "a", ObjectRead, true},
		{"alice-reads", "PUT", "a", ObjectWrite, false},
		{"bob", "GET", "2026/a", ObjectRead, true},
		{"bob", "GET", "2025/a", ObjectRead, false},
		{"bob", "PUT", "2026/a", ObjectWrite, false},
	} {
		p, err := w.use(tc.method, w.signed(t, w.keys[tc.by], LinkRequest{Method: tc.method, Bucket: "photos", Key: tc.key}), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Allowed(p, tc.action, "photos", tc.key); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
	// The root key's links are as narrow, and all of them need no copy.
	next := Generate(RootID)
	if err := w.gate.SetRoots(next, w.root); err != nil {
		t.Fatal(err)
	}
	w.age = MaxAge + 1
	link := w.signed(t, w.root, LinkRequest{Method: "PUT", Bucket: "photos", Key: "a"})
	p, err := w.use("PUT", link, nil)
	if err != nil || p.Root || p.User != RootID {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, a := range allActions {
		if Allowed(p, a, "photos", "a") != (a == ObjectWrite) || Allowed(p, a, "photos", "b") || Allowed(p, a, "videos", "a") {
			t.Errorf("%s is allowed with a link", a)
		}
	}
	if err := w.gate.SetRoots(next); err != nil {
		t.Fatal(err)
	}
	p, err = w.use("PUT", link, nil)
	refused(t, p, err, ErrUnauthenticated, "isn't valid here")
}

// TestAlteredLinks: everything that a link says is signed.
func TestAlteredLinks(t *testing.T) {
	w := newWorld(t)
	sum := sha256.Sum256([]byte("content"))
	sent := [][2]string{{"Content-Type", "image/png"}, {"X-Tag", "1"}}
	link := w.signed(t, w.keys["alice"], LinkRequest{Method: "PUT", Bucket: "photos", Key: "2026/a", Query: "x=1", Headers: sent, Digest: sum[:]})
	p, err := w.use("PUT", link, sent)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := p.ContentDigest(); !ok || got != sum {
		t.Errorf("digest %x, %t", got, ok)
	}
	replace := func(old, with string) string {
		if !strings.Contains(link, old) {
			t.Fatalf("%s has no %s", link, old)
		}
		return strings.Replace(link, old, with, 1)
	}
	end := w.now.Add(time.Hour).Unix()
	signature := link[strings.Index(link, "gl-signature=")+len("gl-signature="):]
	const invalid = "isn't valid here"
	for name, tc := range map[string]struct {
		method, link string
		sent         [][2]string
		want         string
	}{
		"method":               {"DELETE", link, sent, "gl-digest is for PUT"},
		"key of the path":      {"PUT", replace("2026/a", "2026/b"), sent, invalid},
		"escape of the path":   {"PUT", replace("2026/a", "2026/%61"), sent, invalid},
		"slash of the path":    {"PUT", replace("2026/a", "2026%2Fa"), sent, invalid},
		"bucket":               {"PUT", replace("photos", "videos"), sent, invalid},
		"door":                 {"PUT", replace("/data/", "/v1/"), sent, "the path"},
		"expiry":               {"PUT", replace("gl-expires="+strconv.FormatInt(end, 10), "gl-expires="+strconv.FormatInt(end+1, 10)), sent, invalid},
		"expiry with a zero":   {"PUT", replace("gl-expires=", "gl-expires=0"), sent, "gl-expires"},
		"expiry with a plus":   {"PUT", replace("gl-expires=", "gl-expires=%2B"), sent, "gl-expires"},
		"no expiry":            {"PUT", replace("gl-expires="+strconv.FormatInt(end, 10)+"&", ""), sent, "gl-expires"},
		"another's":            {"PUT", replace("gl-key=alice", "gl-key=bob"), sent, invalid},
		"the root's":           {"PUT", replace("gl-key=alice", "gl-key=root"), sent, invalid},
		"nobody's":             {"PUT", replace("gl-key=alice", "gl-key=carol"), sent, invalid},
		"no key":               {"PUT", replace("gl-key=alice&", ""), sent, "gl-key"},
		"key twice":            {"PUT", link + "&gl-key=alice", sent, "given twice"},
		"query":                {"PUT", replace("x=1", "x=2"), sent, invalid},
		"query dropped":        {"PUT", replace("x=1&", ""), sent, invalid},
		"query added":          {"PUT", link + "&y=1", sent, invalid},
		"query twice":          {"PUT", link + "&x=1", sent, invalid},
		"query over the limit": {"PUT", link + "&y=" + strings.Repeat("x", maxLinkQueryBytes), sent, "over 8192"},
		"unknown parameter":    {"PUT", link + "&gl-user=alice", sent, "unknown parameter"},
		"broken escape":        {"PUT", link + "&y=%zz", sent, "decoded"},
		"digest":               {"PUT", replace("gl-digest="+hex.EncodeToString(sum[:1]), "gl-digest=00"), sent, invalid},
		"digest in capitals":   {"PUT", replace(hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:]))), sent, "gl-digest"},
		"digest too short":     {"PUT", replace("gl-digest="+hex.EncodeToString(sum[:1]), "gl-digest="), sent, "gl-digest"},
		"digest dropped":       {"PUT", replace("gl-digest="+hex.EncodeToString(sum[:])+"&", ""), sent, invalid},
		"header's value":       {"PUT", link, [][2]string{{"Content-Type", "text/html"}, sent[1]}, invalid},
		"header missing":       {"PUT", link, sent[:1], "the header x-tag is signed"},
		"header twice":         {"PUT", link, append([][2]string{{"X-Tag", "2"}}, sent...), "the header x-tag is signed"},
		"headers dropped":      {"PUT", replace("gl-headers="+url.QueryEscape("content-type;x-tag")+"&", ""), sent, invalid},
		"one header dropped":   {"PUT", replace(url.QueryEscape("content-type;x-tag"), "x-tag"), sent, invalid},
		"headers in disorder":  {"PUT", replace(url.QueryEscape("content-type;x-tag"), "x-tag%3Bcontent-type"), sent, "gl-headers"},
		"headers in capitals":  {"PUT", replace(url.QueryEscape("content-type;x-tag"), "Content-Type%3Bx-tag"), sent, "gl-headers"},
		"headers empty":        {"PUT", replace(url.QueryEscape("content-type;x-tag"), ""), sent, "gl-headers"},
		"header of a secret":   {"PUT", replace(url.QueryEscape("content-type;x-tag"), "authorization"), sent, "gl-headers"},
		"no signature":         {"PUT", replace("&gl-signature="+signature, ""), sent, "gl-signature"},
		"signature cut":        {"PUT", replace(signature, signature[:62]), sent, "gl-signature"},
		"signature in capital": {"PUT", replace(signature, strings.ToUpper(signature)), sent, "gl-signature"},
		"signature of zeros":   {"PUT", replace(signature, strings.Repeat("0", 64)), sent, invalid},
		"not for POST":         {"POST", link, sent, "the method"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := w.use(tc.method, tc.link, tc.sent)
			refused(t, p, err, ErrUnauthenticated, tc.want)
			if err != nil && strings.Contains(err.Error(), signature[:60]) {
				t.Errorf("%v has the signature", err)
			}
		})
	}
	for i := range 32 {
		altered := []byte(signature)
		altered[2*i] ^= 1 // a digit stays a digit but for one, which is refused as well
		p, err := w.use("PUT", replace(signature, string(altered)), sent)
		refused(t, p, err, ErrUnauthenticated, "")
	}
}

func TestLinkMethods(t *testing.T) {
	w := newWorld(t)
	for _, signed := range []string{"GET", "PUT", "DELETE"} {
		link := w.signed(t, w.keys["alice"], LinkRequest{Method: signed, Bucket: "photos", Key: "a"})
		for _, used := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			p, err := w.use(used, link, nil)
			if used == signed || used == "HEAD" && signed == "GET" {
				if err != nil {
					t.Errorf("%s with a link to %s: %v", used, signed, err)
				}
				continue
			}
			refused(t, p, err, ErrUnauthenticated, "isn't valid here")
		}
	}
}

func TestLinkTime(t *testing.T) {
	w := newWorld(t)
	made := w.now
	link := w.signed(t, w.keys["alice"], LinkRequest{Method: "GET", Bucket: "photos", Key: "a", Expires: w.now.Add(MaxLinkAge)})
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{
		{0, ""}, {MaxLinkAge - 1, ""}, {MaxLinkAge, "expired"}, {MaxLinkAge + time.Hour, "expired"},
		{-linkLeeway, ""}, {-linkLeeway - 1, "more than 168h"},
	} {
		w.now = made.Add(tc.after)
		p, err := w.use("GET", link, nil)
		if tc.want == "" {
			if err != nil {
				t.Errorf("after %v: %v", tc.after, err)
			}
			continue
		}
		refused(t, p, err, ErrUnauthenticated, tc.want)
	}
	// It ends with its key, if that comes first.
	w.now = made
	w.key("alice").Expires = made.Add(time.Minute).UnixNano()
	w.publish(t)
	if p, err := w.use("GET", link, nil); err != nil || !p.ExpiresAt.Equal(made.Add(time.Minute)) {
		t.Errorf("%+v, %v", p, err)
	}
	w.now = made.Add(time.Minute)
	p, err := w.use("GET", link, nil)
	refused(t, p, err, ErrUnauthenticated, "the key has expired")
}

func TestLinkDies(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world)
		kind   error
	}{
		"key gone":      {func(w *world) { w.rows.Keys = nil }, ErrUnauthenticated},
		"key disabled":  {func(w *world) { w.key("bob").Disabled = true }, ErrUnauthenticated},
		"user disabled": {func(w *world) { w.user("bob").Disabled = true }, ErrUnauthenticated},
		"stale":         {func(w *world) { w.age = MaxAge + 1 }, ErrStale},
		"other mesh":    {func(w *world) { w.gate.SetDeployment("other") }, ErrUnauthenticated},
		"another key of that id": {func(w *world) {
			w.key("bob").Sealed = w.master.SealKey(Generate("bob"), "bob")
		}, ErrUnauthenticated},
	} {
		w := newWorld(t)
		link := w.signed(t, w.keys["bob"], LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a"})
		tc.change(w)
		w.publish(t)
		if p, err := w.use("GET", link, nil); !errors.Is(err, tc.kind) || p != (Principal{}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// TestLinkAlone: a link goes with no other credential, and counts for more than
// a certificate.
func TestLinkAlone(t *testing.T) {
	w := newWorld(t)
	l := w.link(t, w.keys["alice"], LinkRequest{Method: "GET", Bucket: "photos", Key: "a"})
	p, err := w.gate.Verify(Request{Link: l, Authorization: "Bearer " + w.root.String(), Now: w.now})
	refused(t, p, err, ErrUnauthenticated, "both")
	p, err = w.gate.Verify(Request{Link: l, Certificate: []string{"bob.example"}, Now: w.now})
	if err != nil || p.ID != "alice" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, query := range []string{"", "stale=5s", "a=%zz", "glkey=1", "x=gl-key"} {
		if l, err := ParseLink("GET", "/data/b/k", query, nil); l != nil || err != nil {
			t.Errorf("%q: %v, %v", query, l, err)
		}
	}
}

func TestSignLinkRefuses(t *testing.T) {
	w := newWorld(t)
	good := LinkRequest{Method: "PUT", Bucket: "photos", Key: "a", Expires: w.now.Add(time.Hour)}
	for field, change := range map[string]func(r *LinkRequest){
		"method":  func(r *LinkRequest) { r.Method = "HEAD" },
		"bucket":  func(r *LinkRequest) { r.Bucket = AllBuckets },
		"key":     func(r *LinkRequest) { r.Key = "" },
		"expires": func(r *LinkRequest) { r.Expires = w.now.Add(MaxLinkAge + time.Second) },
		"query":   func(r *LinkRequest) { r.Query = "gl-key=x" },
		"headers": func(r *LinkRequest) { r.Headers = [][2]string{{"Authorization", "x"}} },
		"digest":  func(r *LinkRequest) { r.Digest = []byte("short") },
		"answer":  func(r *LinkRequest) { r.Answer = [][2]string{{"content-type", "text/plain"}} }, // of a PUT
	} {
		r := good
		change(&r)
		var f *FieldError
		if _, err := SignLink(w.keys["alice"], testMesh, r, w.now); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, r := range []LinkRequest{
		{Method: "PUT", Bucket: "photos", Key: "a\x00", Expires: good.Expires},
		{Method: "PUT", Bucket: "../x", Key: "a", Expires: good.Expires},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: w.now},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Query: "%zz"},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Query: "x=" + strings.Repeat("x", maxLinkQueryBytes)},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Headers: [][2]string{{"x", "1"}, {"X", "2"}}},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Headers: [][2]string{{"x", "1\n"}}},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Headers: [][2]string{{"Host", "files.example.com"}}},
		{Method: "PUT", Bucket: "photos", Key: "a", Expires: good.Expires, Headers: make([][2]string, maxLinkHeaders+1)},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Digest: make([]byte, 32)},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Query: "response-content-type=x"},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-type", ""}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-type", " text/plain"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-type", "a\r\nb"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-type", "\xff"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-type", strings.Repeat("x", maxAnswerBytes+1)}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"expires", "x"}, {"Expires", "y"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"content-security-policy", "x"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"x-content-type-options", "x"}}},
		{Method: "GET", Bucket: "photos", Key: "a", Expires: good.Expires, Answer: [][2]string{{"set-cookie", "x"}}},
	} {
		var f *FieldError
		if link, err := SignLink(w.keys["alice"], testMesh, r, w.now); !errors.As(err, &f) {
			t.Errorf("%+v: %s, %v", r, link, err)
		}
	}
	if _, err := SignLink(Credential{}, testMesh, good, w.now); !errors.Is(err, ErrCredential) {
		t.Error(err)
	}
	if _, err := SignLink(w.keys["alice"], "", good, w.now); err == nil {
		t.Error("signed for no mesh")
	}
}

// TestLinkAnswer: a link may say how it is answered, and nobody else may change
// that.
func TestLinkAnswer(t *testing.T) {
	w := newWorld(t)
	request := LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a", Query: "stale=5s", Answer: [][2]string{
		{"Content-Type", "text/plain; charset=utf-8"}, {"content-disposition", `attachment; filename="ä & b.txt"`}, {"expires", "0"},
	}}
	link := w.signed(t, w.keys["alice"], request)
	want := [][2]string{{"content-type", "text/plain; charset=utf-8"}, {"content-disposition", `attachment; filename="ä & b.txt"`}, {"expires", "0"}}
	for _, method := range []string{"GET", "HEAD"} {
		p, err := w.use(method, link, nil)
		if err != nil || !slices.Equal(p.Answer(), want) {
			t.Errorf("%s: %q, %v", method, p.Answer(), err)
		}
	}
	path, query, _ := strings.Cut(link, "?")
	if l, err := ParseLink("GET", path, query, nil); err != nil || l.Query != "stale=5s" {
		t.Errorf("left of the query: %v, %v", l, err)
	}
	plain := w.signed(t, w.keys["alice"], LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a"})
	if p, err := w.use("GET", plain, nil); err != nil || p.Answer() != nil {
		t.Errorf("of a link without: %q, %v", p.Answer(), err)
	}
	put := w.signed(t, w.keys["alice"], LinkRequest{Method: "PUT", Bucket: "photos", Key: "2026/a"})
	for name, tc := range map[string]struct{ method, link, want string }{
		"added":       {"GET", plain + "&response-content-type=text/html", "isn't valid here"},
		"changed":     {"GET", strings.Replace(link, "text%2Fplain", "text%2Fhtml", 1), "isn't valid here"},
		"dropped":     {"GET", strings.Replace(link, "&response-expires=0", "", 1), "isn't valid here"},
		"twice":       {"GET", link + "&response-expires=0", "given twice"},
		"empty":       {"GET", plain + "&response-expires=", "is empty"},
		"control":     {"GET", plain + "&response-expires=a%0d%0aSet-Cookie:x", "control character"},
		"broken":      {"GET", plain + "&response-expires=%ff", "UTF-8"},
		"space":       {"GET", plain + "&response-expires=+a", "white space"},
		"long":        {"GET", plain + "&response-expires=" + strings.Repeat("x", maxAnswerBytes+1), "1024 are allowed"},
		"of PUT":      {"PUT", put + "&response-expires=0", "is for GET"},
		"not allowed": {"GET", plain + "&response-set-cookie=0", "isn't valid here"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := w.use(tc.method, tc.link, nil)
			refused(t, p, err, ErrUnauthenticated, tc.want)
		})
	}
}

// TestLinkForm pins what is signed, for clients in other languages.
func TestLinkForm(t *testing.T) {
	secret := make([]byte, secretBytes)
	for i := range secret {
		secret[i] = byte(i)
	}
	c := Credential{ID: "alice", secret: seal(secret)}
	now := time.Unix(1_800_000_000, 0)
	link, err := SignLink(c, testMesh, LinkRequest{Method: "PUT", Bucket: "photos", Key: "2026/ä.jpg", Query: "x=1",
		Headers: [][2]string{{"Content-Type", "image/jpeg"}}, Expires: now.Add(time.Hour), Digest: make([]byte, 32)}, now)
	if err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(link, "?")
	l, err := ParseLink("PUT", path, query, func(string) []string { return []string{"image/jpeg"} })
	if err != nil {
		t.Fatal(err)
	}
	zeros := strings.Repeat("0", 64)
	want := "16:gridloom link v1\n13:0b6e4f2c-mesh\n3:PUT\n28:/data/photos/2026/%C3%A4.jpg\n" +
		"1:5\n9:gl-digest\n64:" + zeros + "\n10:gl-expires\n10:1800003600\n10:gl-headers\n12:content-type\n6:gl-key\n5:alice\n1:x\n1:1\n" +
		"1:1\n12:content-type\n10:image/jpeg\n10:1800003600\n64:" + zeros + "\n"
	if got := string(l.canonical(testMesh)); got != want {
		t.Errorf("signed is\n%s, want\n%s", got, want)
	}
	const signature = "074c7d0ab24e7ef135bfd0fb3ec4e6932bd1df70770206579dbecb761513f535" // by another program
	if got := hex.EncodeToString(l.signature.bytes[:]); got != signature {
		t.Errorf("signature %s, want %s", got, signature)
	}
}

// TestDamagedRow: where nothing can be compared with, nothing fits, the zero key
// neither.
func TestDamagedRow(t *testing.T) {
	w := newWorld(t)
	w.key("alice").Sealed = flip(w.key("alice").Sealed, 30)
	w.publish(t)
	l := w.link(t, w.keys["alice"], LinkRequest{Method: "GET", Bucket: "photos", Key: "a"})
	l.signature = seal(mac(make([]byte, sha256.Size), string(l.canonical(testMesh))))
	p, err := w.gate.Verify(Request{Link: l, Now: w.now})
	refused(t, p, err, ErrUnauthenticated, "isn't valid here")
}
