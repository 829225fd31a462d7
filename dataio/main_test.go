package dataio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/gridloom/gridloom/dataio"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are those of the tests' node.
func options() dataio.Options {
	return dataio.Options{Deployment: "5e9d5c6a-3f2b-4a6e-9d0c-2f7a1b3c4d5e", Node: "n1", ReserveBytes: -1}
}

// open opens a drive that is closed with the test.
func open(t testing.TB, dir string, o dataio.Options) *dataio.Drive {
	t.Helper()
	d, err := dataio.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// put writes a payload and returns its id.
func put(t testing.TB, d *dataio.Drive, content []byte) dataio.ID {
	t.Helper()
	id := dataio.NewID()
	if err := write(t.Context(), d, id, content, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return id
}

// write writes a payload of an announced size in two parts and commits it.
func write(ctx context.Context, d *dataio.Drive, id dataio.ID, content []byte, announced int64) error {
	w, err := d.Create(ctx, id, announced)
	if err != nil {
		return err
	}
	defer w.Abort()
	half := len(content) / 2
	for _, part := range [][]byte{content[:half], content[half:]} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_, err = w.Commit(ctx)
	return err
}

// get reads a payload through Section and verifies it.
func get(t testing.TB, d *dataio.Drive, id dataio.ID) ([]byte, error) {
	t.Helper()
	f, err := d.Open(t.Context(), id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Verify(t.Context(), 0, -1); err != nil {
		return nil, err
	}
	section, err := f.Section(0, -1)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(section)
}

// random returns n bytes that differ with the seed.
func random(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// wantErr fails the test unless err is every one of the kinds and says what it
// is about.
func wantErr(t testing.TB, err error, about string, kinds ...error) {
	t.Helper()
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("error is %v, want one that is %q", err, kind)
		}
	}
	if err != nil && !bytes.Contains([]byte(err.Error()), []byte(about)) {
		t.Errorf("error is %q, which doesn't say %q", err, about)
	}
}

// tree lists everything below a directory, and the content of small files, to
// compare.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found[filepath.ToSlash(name)] = info.Mode().String()
		if info.Mode().IsRegular() && info.Size() < 4096 {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[filepath.ToSlash(name)] += " " + string(content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
