package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gridloom/gridloom/dataio"
)

// readerFrom notes what is asked of it.
type readerFrom struct {
	bytes.Buffer
	sources []io.Reader
	asked   []int64
	fail    error // at the second window, after one byte
}

func (r *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	window := src.(*io.LimitedReader)
	r.sources = append(r.sources, window.R)
	r.asked = append(r.asked, window.N)
	if r.fail != nil && len(r.asked) == 2 {
		n, _ := io.CopyN(&r.Buffer, window, 1)
		return n, r.fail
	}
	return r.Buffer.ReadFrom(src)
}

func TestSendWindows(t *testing.T) {
	d := open(t, t.TempDir(), options())
	content := random(9<<20, 7)
	f, err := d.Open(t.Context(), put(t, d, content))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		name    string
		n       int64
		windows dataio.Windows
		want    []int64
	}{
		{"nothing", 0, dataio.Windows{}, nil},
		{"less than the first", 1000, dataio.Windows{}, []int64{1000}},
		{"the first", 64 << 10, dataio.Windows{}, []int64{64 << 10}},
		{"one byte more", 64<<10 + 1, dataio.Windows{}, []int64{64 << 10, 1}},
		{"many", 9 << 20, dataio.Windows{}, []int64{64 << 10, 4 << 20, 4 << 20, 1<<20 - 64<<10}},
		{"other sizes", 10, dataio.Windows{FirstBytes: 1, NextBytes: 4}, []int64{1, 4, 4, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, err := f.Section(0, c.n)
			if err != nil {
				t.Fatal(err)
			}
			before := 0
			var after []int64
			c.windows.Before = func() error { before++; return nil }
			c.windows.After = func(n int64) { after = append(after, n) }
			dst := new(readerFrom)
			n, err := dataio.Send(t.Context(), dst, src, c.windows)
			if n != c.n || err != nil || !bytes.Equal(dst.Bytes(), content[:c.n]) {
				t.Errorf("sent %d bytes, %d arrived: %v", n, dst.Len(), err)
			}
			if !slices.Equal(dst.asked, c.want) || !slices.Equal(after, c.want) || before != len(c.want) || src.N != 0 {
				t.Errorf("windows %v, after %v, before %d, left %d; want %v", dst.asked, after, before, src.N, c.want)
			}
			for _, s := range dst.sources {
				if _, ok := s.(*os.File); !ok {
					t.Errorf("the source is a %T, no *os.File", s)
				}
			}
			// The same bytes to a destination without ReadFrom.
			if src, err = f.Section(0, c.n); err != nil {
				t.Fatal(err)
			}
			var plain bytes.Buffer
			n, err = dataio.Send(t.Context(), struct{ io.Writer }{&plain}, src, c.windows)
			if n != c.n || err != nil || !bytes.Equal(plain.Bytes(), content[:c.n]) {
				t.Errorf("sent %d bytes, %d arrived: %v", n, plain.Len(), err)
			}
		})
	}
}

func TestSendEndsEarly(t *testing.T) {
	wrong := errors.New("wrong")
	small := dataio.Windows{FirstBytes: 2, NextBytes: 4}
	limited := func(s string, n int64) *io.LimitedReader { return &io.LimitedReader{R: strings.NewReader(s), N: n} }
	for _, dst := range []io.Writer{new(readerFrom), struct{ io.Writer }{new(bytes.Buffer)}} {
		if n, err := dataio.Send(t.Context(), dst, limited("01234", 8), small); n != 5 || err != io.ErrUnexpectedEOF {
			t.Errorf("a short source: %d bytes, %v", n, err)
		}
		if n, err := dataio.Send(t.Context(), dst, limited("012345", 8), small); n != 6 || err != io.ErrUnexpectedEOF {
			t.Errorf("a source that ends with a window: %d bytes, %v", n, err)
		}
		w := small
		calls := 0
		w.Before = func() error {
			if calls++; calls == 2 {
				return wrong
			}
			return nil
		}
		if n, err := dataio.Send(t.Context(), dst, limited("01234567", 8), w); n != 2 || err != wrong {
			t.Errorf("Before fails: %d bytes, %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w = small
		w.After = func(int64) { cancel() }
		if n, err := dataio.Send(ctx, dst, limited("01234567", 8), w); n != 2 || !errors.Is(err, context.Canceled) {
			t.Errorf("a context that ends: %d bytes, %v", n, err)
		}
	}
	var after []int64
	w := small
	w.After = func(n int64) { after = append(after, n) }
	n, err := dataio.Send(t.Context(), &readerFrom{fail: wrong}, limited("01234567", 8), w)
	if n != 3 || err != wrong || !slices.Equal(after, []int64{2, 1}) {
		t.Errorf("ReadFrom fails: %d bytes, %v, after %v", n, err, after)
	}
	r, pw := io.Pipe()
	r.CloseWithError(wrong)
	n, err = dataio.Send(t.Context(), pw, limited("01234567", 8), small)
	if n != 0 || err != wrong {
		t.Errorf("Write fails: %d bytes, %v", n, err)
	}
}
