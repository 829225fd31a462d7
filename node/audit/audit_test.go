package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o Options) *Log {
	t.Helper()
	if o.File == "" {
		o.File = filepath.Join(t.TempDir(), "audit.log")
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// lines reads a file's records, each of which must be a JSON object in a line.
func lines(t *testing.T, file string) (all []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for part := range bytes.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal(part, &m); err != nil || !bytes.HasSuffix(part, []byte("\n")) {
			t.Fatalf("%q: %v", part, err)
		}
		all = append(all, m)
	}
	return all
}

func TestRecord(t *testing.T) {
	l := open(t, Options{Node: "n1", Level: All})
	r := l.Begin("http", "10.0.0.7:4100", "PUT")
	ctx := With(t.Context(), r)
	From(ctx).Identity("alice", "k1", "link")
	From(ctx).API("PutObject")
	From(ctx).About(Resource{Bucket: "photos", Key: "a\nb\",\"user\":\"root\"\x00\u2028"})
	for i := range maxResources + 4 {
		From(ctx).About(Resource{Other: fmt.Sprint("thing ", i)})
	}
	From(ctx).Fail("permission_denied")
	From(ctx).Fail("internal")
	l.End(r, false, "0af7651916cd43dd8448eb211c80319c")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := lines(t, l.o.File)
	if len(got) != 1 {
		t.Fatalf("%d lines", len(got))
	}
	for field, want := range map[string]any{
		"node": "n1", "door": "http", "address": "10.0.0.7:4100", "user": "alice", "access_key": "k1", "via": "link",
		"api": "PutObject", "method": "PUT", "outcome": "permission_denied", "trace_id": "0af7651916cd43dd8448eb211c80319c",
		"more_resources": float64(5),
	} {
		if got[0][field] != want {
			t.Errorf("%s: %v, want %v", field, got[0][field], want)
		}
	}
	first := got[0]["resources"].([]any)[0].(map[string]any)
	if first["bucket"] != "photos" || first["key"] != "a\nb\",\"user\":\"root\"\x00\u2028" {
		t.Errorf("%q", first)
	}
	if when, err := time.Parse(time.RFC3339Nano, got[0]["time"].(string)); err != nil || time.Since(when) > time.Minute || when.Location() != time.UTC {
		t.Errorf("%v, %v", when, err)
	}
	if s, ok := got[0]["seconds"].(float64); !ok || s < 0 || s > 60 {
		t.Errorf("seconds: %v", got[0]["seconds"])
	}
}

// TestLongNames: what nothing has checked yet can't fill the files.
func TestLongNames(t *testing.T) {
	l := open(t, Options{Level: All})
	r := l.Begin("http", "a", strings.Repeat("M", 60<<10))
	long := strings.Repeat("é", 2<<20)
	for range 2 * maxResources {
		r.About(Resource{Bucket: long, Key: "a" + long, Other: long})
	}
	r.About(Resource{Key: strings.Repeat("k", maxNameBytes)})
	l.End(r, false, "")
	r = l.Begin("http", "a", "GET")
	r.About(Resource{Key: strings.Repeat("k", maxNameBytes)})
	l.End(r, false, "")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := lines(t, l.o.File)
	if info, err := os.Stat(l.o.File); err != nil || info.Size() > 64<<10 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	key := func(line int) string {
		return all[line]["resources"].([]any)[0].(map[string]any)["key"].(string)
	}
	if got := key(0); got != "a"+strings.Repeat("é", maxNameBytes/2-1)+cutOff {
		t.Errorf("%d bytes, ends with %q", len(got), got[len(got)-8:])
	}
	if got := key(1); got != strings.Repeat("k", maxNameBytes) {
		t.Errorf("a key that may be was altered: %d bytes", len(got))
	}
	if got := all[0]["method"]; got != strings.Repeat("M", maxMethodBytes)+cutOff {
		t.Errorf("method %q", got)
	}
}

// TestKeyForName: an access key that somebody gives for a name isn't written down.
func TestKeyForName(t *testing.T) {
	l := open(t, Options{})
	r := l.Begin("http", "a", "PUT")
	secret := strings.Repeat("ab2", 17) + "c"
	r.About(Resource{Bucket: "photos", Key: "x/gl_alice-1_" + secret + "_7abcdef/y"})
	r.About(Resource{Other: "key gl_alice-1_" + secret[:30]}) // cut off
	r.About(Resource{Key: "gl_summer_holidays"})
	l.End(r, false, "")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(lines(t, l.o.File)[0]["resources"])
	if want := "[map[bucket:photos key:x/gl_alice-1_••••/y] map[other:key gl_alice-1_••••] map[key:gl_summer_holidays]]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestFloodOfStrangers: requests that nobody known has made push nothing out of
// the files, and are counted; those of somebody are written, one and all.
func TestFloodOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{Level: Changes})
		request := func(user, outcome string) {
			r := l.Begin("http", "a", "GET")
			r.Identity(user, "", "")
			r.Fail(outcome)
			l.End(r, true, "")
		}
		for range 5 * strangersAtOnce {
			request("", "unauthenticated")
		}
		for range 5 * strangersAtOnce {
			request("alice", "permission_denied")
		}
		time.Sleep(time.Second)
		for range 5 * strangersAtOnce {
			request("", "overloaded")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		have, unlisted := map[string]int{}, 0
		for _, line := range lines(t, l.o.File) {
			have[line["outcome"].(string)]++
			if n, ok := line["unlisted"].(float64); ok {
				unlisted += int(n)
			}
		}
		if have["unauthenticated"] != strangersAtOnce || have["permission_denied"] != 5*strangersAtOnce || have["overloaded"] != strangersPerSecond {
			t.Errorf("lines: %v", have)
		}
		if unlisted != 4*strangersAtOnce { // those since then are the next line's to tell
			t.Errorf("%d are counted, want %d", unlisted, 4*strangersAtOnce)
		}
	})
}

// What isn't recorded costs nothing and breaks nothing.
func TestLevels(t *testing.T) {
	outcomes := []struct {
		outcome string
		read    bool
	}{{"ok", true}, {"ok", false}, {"not_found", true}, {"conflict", false}}
	for level, want := range map[Level]int{Off: 0, Changes: 3, All: 4} {
		l := open(t, Options{Level: level})
		for _, o := range outcomes {
			r := l.Begin("grpc", "a", "")
			if o.outcome != "ok" {
				r.Fail(o.outcome)
			}
			r.API("X")
			r.About(Resource{})
			l.End(r, o.read, "")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if level == Off {
			if _, err := os.Stat(l.o.File); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("off: a file was made: %v", err)
			}
			continue
		}
		if got := len(lines(t, l.o.File)); got != want {
			t.Errorf("%s: %d lines, want %d", level, got, want)
		}
	}
	var none *Log
	none.End(none.Begin("grpc", "a", ""), false, "")
	From(context.Background()).Identity("a", "b", "c")
	if none.Lost() != 0 || none.Close() != nil {
		t.Error("a nil log does something")
	}
	if _, err := ParseLevel("everything"); err == nil || !strings.Contains(err.Error(), `"everything"`) {
		t.Error(err)
	}
}

// Many requests end at once, over many files: no line is lost or torn, no file
// is larger than the limit, and no more are kept than asked for.
func TestRotation(t *testing.T) {
	const writers, each, keep = 8, 200, 1000
	l := open(t, Options{Node: "n1", MaxBytes: 4 << 10, Keep: keep})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r := l.Begin("grpc", "a", "")
				r.API(fmt.Sprint(w, "-", i))
				l.End(r, false, "")
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Lost() != 0 {
		t.Errorf("%d lost", l.Lost())
	}
	files, err := filepath.Glob(l.o.File + "*")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Size() > 4<<10 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
		for _, m := range lines(t, f) {
			seen[m["api"].(string)] = true
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d requests have a line", len(seen), writers*each)
	}
	// The same files, with fewer to be kept.
	stranger := l.o.File + ".mine"
	if err := os.WriteFile(stranger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	few := open(t, Options{File: l.o.File, MaxBytes: 1, Keep: 3})
	for range 2 {
		few.End(few.Begin("grpc", "a", ""), false, "")
	}
	if files, _ = filepath.Glob(l.o.File + ".2*"); len(files) != 3 {
		t.Errorf("%d files are kept, want 3", len(files))
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a file that isn't ours is gone: %v", err)
	}
}

// A file that can't be written is told of once, costs its lines, and is used
// again when it can be.
func TestUnwritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	told := 0
	l := open(t, Options{File: filepath.Join(dir, "audit.log"), MaxBytes: 1, Failed: func(error) { told++ }})
	end := func() { l.End(l.Begin("grpc", "a", ""), false, "") }
	end()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		end()
	}
	if l.Lost() != 3 || told != 1 {
		t.Errorf("%d lost, told %d times; want 3, once", l.Lost(), told)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	end()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, l.o.File); len(got) != 1 || l.Lost() != 3 {
		t.Errorf("%d lines, %d lost", len(got), l.Lost())
	}
	end()
	if l.Lost() != 4 {
		t.Error("a line after Close isn't counted")
	}
	if _, err := Open(Options{File: dir}); err == nil {
		t.Error("a directory was opened")
	}
}

// A line is in the file within a second or so, without a Close.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		l.End(l.Begin("grpc", "a", ""), false, "")
		time.Sleep(flushEvery + time.Millisecond)
		synctest.Wait()
		if got := lines(t, l.o.File); len(got) != 1 {
			t.Errorf("%d lines", len(got))
		}
		cancel()
		<-done
	})
}

func BenchmarkRecord(b *testing.B) {
	l, err := Open(Options{File: filepath.Join(b.TempDir(), "audit.log")})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := l.Begin("grpc", "10.0.0.7:4100", "")
		r.Identity("alice", "k1", "key")
		r.API("PutObject")
		r.About(Resource{Bucket: "photos", Key: "2026/a.jpg"})
		l.End(r, false, "")
	}
	_ = l.Close()
}

// hungFile takes no write until it is let go.
type hungFile struct{ let chan struct{} }

func (f *hungFile) Write(p []byte) (int, error) { <-f.let; return len(p), nil }
func (f *hungFile) Close() error                { return nil }

// TestHungDisk: a disk that answers no more costs lines, which are counted and
// told of once; it holds up requests for some seconds, and nothing for ever.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		l := open(t, Options{Failed: func(error) { told++ }})
		hung := &hungFile{let: make(chan struct{})}
		if err := l.file.Close(); err != nil {
			t.Fatal(err)
		}
		l.file = hung
		l.buf.Reset(hung)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.Run(ctx); close(done) }()
		end := func() (took time.Duration) {
			began := time.Now()
			l.End(l.Begin("grpc", "a", ""), false, "")
			return time.Since(began)
		}
		if took := end(); took != 0 {
			t.Errorf("a line for the buffer took %v", took)
		}
		time.Sleep(flushEvery + time.Millisecond) // Run hangs
		if took := end(); took > patience {
			t.Errorf("the first request waits %v", took)
		}
		for range 3 {
			if took := end(); took != 0 {
				t.Errorf("a later one waits %v", took)
			}
		}
		if l.Lost() != 4 || told != 1 {
			t.Errorf("%d lines lost, told %d times; want 4, once", l.Lost(), told)
		}
		cancel()
		<-done
		began := time.Now()
		if err := l.Close(); !errors.Is(err, errHangs) || time.Since(began) > patience {
			t.Errorf("closing: %v after %v", err, time.Since(began))
		}
		close(hung.let)
	})
}

// TestHungClose: the last flush may be the first write that hangs.
func TestHungClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Options{})
		hung := &hungFile{let: make(chan struct{})}
		if err := l.file.Close(); err != nil {
			t.Fatal(err)
		}
		l.file = hung
		l.buf.Reset(hung)
		l.End(l.Begin("grpc", "a", ""), false, "")
		began := time.Now()
		if err := l.Close(); !errors.Is(err, errHangs) || time.Since(began) != patience {
			t.Errorf("closing: %v after %v", err, time.Since(began))
		}
		close(hung.let)
	})
}
