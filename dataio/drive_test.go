package dataio_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gridloom/gridloom/dataio"
)

func TestOpenFormatsABlankDirectory(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(dir string) error
	}{
		{"none", func(dir string) error { return os.RemoveAll(dir) }},
		{"empty", func(string) error { return nil }},
		{"root of a new file system", func(dir string) error { return os.Mkdir(filepath.Join(dir, "lost+found"), 0o700) }},
		{"interrupted first start", func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600),
				os.WriteFile(filepath.Join(dir, "drive.json.new"), []byte("{"), 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "drive")
			if err := errors.Join(os.MkdirAll(dir, 0o700), c.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			d := open(t, dir, options())
			if d.State() != dataio.Online || d.Path() != dir {
				t.Errorf("state %v, path %s", d.State(), d.Path())
			}
			var got map[string]any
			content, err := os.ReadFile(filepath.Join(dir, "drive.json"))
			if err := errors.Join(err, json.Unmarshal(content, &got)); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{"version": 1.0, "id": d.ID(), "deployment": options().Deployment, "node": "n1"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("drive.json (-want +got):\n%s", diff)
			}
			id := put(t, d, []byte("kept"))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir, options())
			if again.ID() != d.ID() {
				t.Errorf("the drive's id changed from %s to %s", d.ID(), again.ID())
			}
			if got, err := get(t, again, id); string(got) != "kept" || err != nil {
				t.Errorf("payload is %q after opening again (%v)", got, err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	drive := func(version int, deployment, node, more string) string {
		return fmt.Sprintf(`{"version":%d,"id":%q,"deployment":%q,"node":%q%s}`, version, id, deployment, node, more)
	}
	deployment := options().Deployment
	for _, c := range []struct {
		name    string
		file    string
		content string
		driveID string
		kind    error
		says    string
	}{
		{"other files", "thesis.doc", "x", "", dataio.ErrForeign, `"thesis.doc"`},
		{"payload without identity", "payload", "x", "", dataio.ErrForeign, `"payload"`},
		{"another deployment", "drive.json", drive(1, "other", "n1", ""), "", dataio.ErrForeign, "deployment other"},
		{"another node", "drive.json", drive(1, deployment, "n2", ""), "", dataio.ErrForeign, `node "n2"`},
		{"another drive", "drive.json", drive(1, deployment, "n1", ""), "mine", dataio.ErrForeign, id},
		{"not mounted", "", "", "mine", dataio.ErrForeign, "is it mounted?"},
		{"a later version", "drive.json", drive(2, deployment, "n1", `,"erasure":true`), "", dataio.ErrUnknownFormat, "version 2"},
		{"an unknown field", "drive.json", drive(1, deployment, "n1", `,"erasure":true`), "", dataio.ErrUnknownFormat, "erasure"},
		{"two values", "drive.json", drive(1, deployment, "n1", "") + "{}", "", dataio.ErrUnknownFormat, "drive.json"},
		{"no node", "drive.json", drive(1, deployment, "", ""), "", dataio.ErrUnknownFormat, "node"},
		{"not JSON", "drive.json", "\x00\x00\x00\x00", "", dataio.ErrUnknownFormat, "drive.json"},
		{"empty", "drive.json", "", "", dataio.ErrUnknownFormat, "drive.json"},
		{"huge", "drive.json", strings.Repeat(" ", 1<<20), "", nil, "drive.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			o := options()
			o.DriveID = c.driveID
			d, err := dataio.Open(t.Context(), dir, o)
			if err == nil {
				d.Close()
				t.Fatal("it was opened")
			}
			if c.kind != nil {
				wantErr(t, err, c.says, c.kind)
			}
			wantErr(t, err, dir)
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("the directory was changed (-before +after):\n%s", diff)
			}
		})
	}
	if _, err := dataio.Open(t.Context(), t.TempDir(), dataio.Options{Node: "n1"}); err == nil {
		t.Error("a drive was opened for no deployment")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dataio.Open(ctx, t.TempDir(), options()); !errors.Is(err, context.Canceled) {
		t.Errorf("a drive was opened in a context that has ended: %v", err)
	}
}

// TestOpenLeavesNothingBehind fails the formatting at a file in the way.
func TestOpenLeavesNothingBehind(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, parent)
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := dataio.Open(t.Context(), dir, options()); err == nil {
			t.Errorf("%s was opened", dir)
		} else {
			wantErr(t, err, dir)
		}
	}
	if diff := cmp.Diff(before, tree(t, parent)); diff != "" {
		t.Errorf("the directory was changed (-before +after):\n%s", diff)
	}
}

func TestDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := dataio.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(dir, "FORMAT")); string(content) != "gridloom 2\n" || err != nil {
		t.Errorf("FORMAT is %q (%v)", content, err)
	}
	for _, content := range []string{"one", "two"} {
		if err := d.WriteFile("key", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := d.ReadFile("key"); string(got) != content || err != nil {
			t.Errorf("key is %q (%v), want %q", got, err, content)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "../key"} {
		if err := d.WriteFile(name, nil, 0o600); err == nil {
			t.Errorf("%q was written", name)
		}
	}
	if got := slices.Sorted(maps.Keys(tree(t, dir))); !slices.Equal(got, []string{".", "FORMAT", "key", "lock"}) {
		t.Errorf("the directory holds %q", got)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = dataio.OpenDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDirRefuses(t *testing.T) {
	for name, content := range map[string]string{
		"FORMAT":  "gridloom 1\n",
		"FORMAT ": "x",
		"thesis":  "x",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		d, err := dataio.OpenDir(dir)
		if err == nil {
			d.Close()
			t.Fatalf("a directory with %q was opened", name)
		}
		wantErr(t, err, dir, dataio.ErrUnknownFormat)
		if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
			t.Errorf("the directory was changed (-before +after):\n%s", diff)
		}
	}
}

// secondVariable makes TestSecondProcess the second process.
const secondVariable = "GRIDLOOM_TEST_SECOND_PROCESS"

func TestSecondProcess(t *testing.T) {
	if dir := os.Getenv(secondVariable); dir != "" {
		_, dirErr := dataio.OpenDir(filepath.Join(dir, "data"))
		_, driveErr := dataio.Open(t.Context(), filepath.Join(dir, "drive"), options())
		wantErr(t, dirErr, filepath.Join(dir, "data"), dataio.ErrLocked)
		wantErr(t, driveErr, filepath.Join(dir, "drive"), dataio.ErrLocked)
		return
	}
	dir := t.TempDir()
	data, err := dataio.OpenDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	drive := open(t, filepath.Join(dir, "drive"), options())
	before := tree(t, dir)

	second := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondProcess$", "-test.v")
	second.Env = append(os.Environ(), secondVariable+"="+dir)
	output, err := second.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: TestSecondProcess") {
		t.Errorf("the second process was not refused: %v\n%s", err, output)
	}
	if _, err := dataio.Open(t.Context(), drive.Path(), options()); err == nil {
		t.Error("the drive was opened twice in one process")
	} else {
		wantErr(t, err, drive.Path(), dataio.ErrLocked)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("the directories were changed (-before +after):\n%s", diff)
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	if err := drive.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, drive.Path(), options())
}

func TestCloseAbortsWriters(t *testing.T) {
	d := open(t, t.TempDir(), options())
	w, err := d.Create(t.Context(), dataio.NewID(), -1)
	if err != nil {
		t.Fatal(err)
	}
	kept := put(t, d, []byte("kept"))
	f, err := d.Open(t.Context(), kept)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if d.State() != dataio.Offline {
		t.Errorf("state is %v", d.State())
	}
	if _, err := f.ReadAt(make([]byte, 4), 0); err != nil {
		t.Errorf("an open file can't be read: %v", err)
	}
	_, createErr := d.Create(t.Context(), dataio.NewID(), 1)
	_, openErr := d.Open(t.Context(), kept)
	_, writeErr := w.Write([]byte("x"))
	_, commitErr := w.Commit(t.Context())
	_, usageErr := d.Usage()
	for _, err := range []error{createErr, openErr, writeErr, commitErr, usageErr, d.Remove(t.Context(), kept), d.Walk(t.Context(), nil)} {
		if err == nil {
			t.Error("a call to a closed drive succeeded")
		}
		wantErr(t, err, d.Path(), dataio.ErrOffline)
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
	again := open(t, d.Path(), options())
	if got := payloads(t, again); !slices.Equal(got, []dataio.ID{kept}) {
		t.Errorf("the drive holds %v, want only %v", got, kept)
	}
}

// TestPathLeadsElsewhere puts another directory in the place of the drive's, as
// an unmount does.
func TestPathLeadsElsewhere(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "drive")
	var changes []string
	o := options()
	o.Events.StateChanged = func(_ *dataio.Drive, from, to dataio.State, cause error) {
		changes = append(changes, fmt.Sprintf("%v to %v: %t", from, to, cause != nil))
	}
	d := open(t, dir, o)
	kept := put(t, d, []byte("kept"))
	if err := errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(t.Context(), dataio.NewID(), 10); err == nil {
		t.Error("a payload was created")
	} else {
		wantErr(t, err, dir, dataio.ErrOffline)
	}
	if d.State() != dataio.Offline {
		t.Errorf("state is %v", d.State())
	}
	if left := tree(t, dir); len(left) != 1 {
		t.Errorf("something was written beneath: %v", left)
	}
	if got, err := get(t, d, kept); string(got) != "kept" || err != nil {
		t.Errorf("payload is %q (%v)", got, err)
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	put(t, d, []byte("back"))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"online to offline: true", "offline to online: false", "online to offline: false"}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("changes of state (-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	d := open(t, t.TempDir(), options())
	u, err := d.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.TotalBytes <= 0 || u.UsedBytes < 0 || u.FreeBytes < 0 || u.UsedBytes+u.FreeBytes > u.TotalBytes {
		t.Errorf("bytes don't add up: %+v", u)
	}
	if u.TotalInodes < 0 || u.UsedInodes+u.FreeInodes > u.TotalInodes {
		t.Errorf("inodes don't add up: %+v", u)
	}
}

// payloads returns what Walk sees.
func payloads(t testing.TB, d *dataio.Drive) []dataio.ID {
	t.Helper()
	var ids []dataio.ID
	if err := d.Walk(t.Context(), func(id dataio.ID, _ time.Time) error {
		ids = append(ids, id)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(ids, func(a, b dataio.ID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}
