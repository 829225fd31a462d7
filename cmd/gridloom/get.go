package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get BUCKET/KEY [FILE]",
		Short: "Fetch objects into files or to standard output",
		Long: `Fetch an object into a file: FILE, or in FILE if that is a folder or ends with
a slash, or in the current folder. "-" is standard output. The bytes go to a
temporary file beside it, are checked against the object's SHA-256, and get
their name only then: a get that is cut off leaves nothing, and FILE as it was.

With -r every object below BUCKET[/PREFIX], many at once, into the folder FILE,
which is made if need be. Keys that would lead out of that folder, or that the
file system can't hold, are refused one by one.

--range takes the bytes of HTTP's Range header: 0-99 the first hundred, 100-
all but those, -100 the last hundred. A part can't be checked by SHA-256.

What comes is the newest version. --stale 5s allows one that was the newest up
to so long ago: a node that can't reach the others may still have it.

--verify has the nodes compare every byte with its checksum before they send it,
and pass by a copy that has gone bad on its drive. Without it a whole object that
has is noticed here, and a part not at all.`,
		Example: `  gridloom get docs/2026/report.pdf
  gridloom get docs/2026/report.pdf /tmp/
  gridloom get backups/shop.sql - | psql shop
  gridloom get logs/today.log - --range -1000
  gridloom get -r photos/summer ./summer
  gridloom get -r photos ./all`,
		Args: arguments(1, 2),
	}
	f := cmd.Flags()
	recursive := f.BoolP("recursive", "r", false, "fetch everything below a prefix")
	byteRange := f.String("range", "", "fetch only these `BYTES`: FIRST-LAST, FIRST- or -COUNT")
	parallel := parallelFlag(cmd)
	stale := staleFlag(cmd)
	verify := f.Bool("verify", false, "send only what was compared with its checksum on the drive")
	f.StringSlice("if-match", nil, "only if the object has this `ETAG`; repeatable")
	f.StringSlice("if-none-match", nil, "only if the object has not this `ETAG`; repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		g := &getting{app: a, client: c, stale: stale}
		if *verify {
			g.verify = gridloomv1.Verify_VERIFY_ALWAYS
		}
		var err error
		if g.conditions, err = conditions(cmd); err != nil {
			return err
		}
		if *byteRange != "" {
			if g.part, err = parseRange(*byteRange); err != nil {
				return err
			}
		}
		dest := ""
		if len(args) == 2 {
			dest = args[1]
		}
		if *recursive {
			return g.getBelow(ctx, cmd, *parallel, args[0], dest)
		}
		return g.getOne(ctx, args[0], dest)
	})
}

// parseRange reads one range of RFC 9110, 14.1.2, without its unit.
func parseRange(text string) (*gridloomv1.Range, error) {
	bad := usageErrorf("--range: %q is not FIRST-LAST, FIRST- or -COUNT, in bytes from 0", text)
	first, last, ok := strings.Cut(text, "-")
	from, err1 := strconv.ParseUint(first, 10, 63)
	to, err2 := strconv.ParseUint(last, 10, 63)
	switch {
	case !ok:
		return nil, bad
	case first == "" && err2 == nil && to > 0:
		return &gridloomv1.Range{Offset: -int64(to)}, nil
	case err1 == nil && last == "":
		return &gridloomv1.Range{Offset: int64(from)}, nil
	case err1 == nil && err2 == nil && from <= to && to-from+1 < 1<<63:
		return &gridloomv1.Range{Offset: int64(from), Length: int64(to - from + 1)}, nil
	}
	return nil, bad
}

// getting is one gridloom get.
type getting struct {
	app        *app
	client     *client
	part       *gridloomv1.Range // nil: the whole object
	conditions *gridloomv1.Conditions
	stale      *age
	verify     gridloomv1.Verify
	meter      *meter
	begin      func(*gridloomv1.GetObjectHeader) // nil where the size is known before
}

// getOne fetches one object to a file or to standard output.
func (g *getting) getOne(ctx context.Context, object, dest string) error {
	src, err := parseObject(object)
	if err != nil {
		return err
	}
	if dest != "-" {
		if dest, err = fileFor(src, dest); err != nil {
			return err
		}
	}
	if dest != "-" || !isTerminal(g.app.stdout) { // where the bytes themselves are seen
		g.meter = g.app.newMeter(0)
		defer g.meter.stop()
	}
	g.begin = func(h *gridloomv1.GetObjectHeader) { g.meter.expect(h.GetLength()) }
	if dest == "-" {
		_, err := g.client.get(ctx, g.request(src), g.app.stdout, g.meter, g.begin)
		return err
	}
	if info, err := os.Stat(dest); err == nil && !info.Mode().IsRegular() {
		return g.getInto(ctx, src, dest) // a pipe, a terminal, /dev/null: it has to stay what it is
	}
	root, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return err
	}
	defer root.Close()
	return aboutFile(dest, g.fetch(ctx, src, root, filepath.Base(dest), dest))
}

// fileFor is the file that an object goes to. A symbolic link is followed, as
// cp does, to the file that is to be replaced.
func fileFor(src address, dest string) (string, error) {
	info, err := os.Stat(dest)
	if dest == "" || os.IsPathSeparator(dest[len(dest)-1]) || err == nil && info.IsDir() {
		name, err := filepath.Localize(src.base())
		if err != nil {
			return "", usageErrorf("%q can't be the name of a file here; name one", src.base())
		}
		return filepath.Join(dest, name), nil
	}
	if link, err := os.Lstat(dest); err == nil && link.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(dest)
	}
	return dest, nil
}

// getInto writes an object into something that is no regular file.
func (g *getting) getInto(ctx context.Context, src address, dest string) error {
	f, err := os.OpenFile(dest, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	h, err := g.client.get(ctx, g.request(src), f, g.meter, g.begin)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return g.print(h, dest)
}

// getBelow fetches every object below an address into a folder. All that it
// writes goes through one handle on that folder, which nothing leads out of:
// neither a key nor a link that is there already.
func (g *getting) getBelow(ctx context.Context, cmd *cobra.Command, parallel int, below, dest string) error {
	src, err := parseAddress(below)
	if err != nil {
		return err
	}
	switch {
	case g.part != nil || g.conditions != nil:
		return usageErrorf("-r fetches whole objects, with no --range, --if-match or --if-none-match")
	case dest == "-":
		return usageErrorf("-r needs a folder, not standard output")
	case dest == "" && src.key == "":
		dest = src.bucket
	case dest == "":
		if dest, err = filepath.Localize(path.Base(src.key)); err != nil {
			return usageErrorf("%q can't be the name of a folder here; name one", path.Base(src.key))
		}
	}
	b, err := g.app.newBatch(ctx, g.client, cmd, parallel)
	if err != nil {
		return err
	}
	g.meter = g.app.newMeter(0)
	defer g.meter.stop()
	found := false
	folder := &lazyFolder{name: dest}
	err = g.client.list(b.ctx, &gridloomv1.ListObjectsRequest{Bucket: src.bucket, Prefix: src.prefix(), MaxAge: g.stale.proto()}, func(page *gridloomv1.ListObjectsResponse) error {
		if len(page.GetObjects()) == 0 {
			return nil
		}
		found = true
		root, err := folder.open()
		if err != nil {
			return err
		}
		for _, o := range page.GetObjects() {
			g.meter.expect(o.GetSize())
			key := o.GetKey()
			b.do(func(ctx context.Context) error {
				return g.fetchBelow(ctx, address{src.bucket, key}, strings.TrimPrefix(key, src.prefix()), root, dest)
			})
		}
		return nil
	})
	b.fail(err)
	err = b.wait(ctx)
	folder.close()
	if err == nil && !found && src.key != "" {
		return &notFoundError{fmt.Sprintf("no object is below %s/%s", src.bucket, src.prefix())}
	}
	return err
}

// lazyFolder is a folder that is made when the first file comes, and taken
// away again if none stayed.
type lazyFolder struct {
	name string
	made bool
	root *os.Root
}

func (l *lazyFolder) open() (root *os.Root, err error) {
	if l.root != nil {
		return l.root, nil
	}
	if _, err := os.Stat(l.name); errors.Is(err, fs.ErrNotExist) {
		l.made = true
	}
	if err := os.MkdirAll(l.name, 0o777); err != nil {
		return nil, err
	}
	l.root, err = os.OpenRoot(l.name)
	return l.root, err
}

func (l *lazyFolder) close() {
	if l.root != nil {
		l.root.Close()
	}
	if l.made {
		os.Remove(l.name) // which it refuses while something is in it
	}
}

// fetchBelow fetches an object to its place in a folder.
func (g *getting) fetchBelow(ctx context.Context, src address, rel string, root *os.Root, dest string) error {
	name, err := filepath.Localize(rel)
	if err != nil || name == "." {
		return fmt.Errorf("%s: not fetched: %q can't be the name of a file below %s", shown(src.String()), rel, dest)
	}
	if err := g.fetch(ctx, src, root, name, filepath.Join(dest, name)); err != nil {
		return about(shown(src.String()), err)
	}
	return nil
}

// fetch gets an object into a temporary file in root, and when it is whole and
// verified renames that to name.
func (g *getting) fetch(ctx context.Context, src address, root *os.Root, name, shownAs string) error {
	temp := ".gridloom-" + rand.Text() + ".part"
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			f.Close() // a second close is no harm
			root.Remove(temp)
		}
	}()
	h, err := g.client.get(ctx, g.request(src), f, g.meter, g.begin)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if dir := filepath.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	done = true
	return g.print(h, shownAs)
}

func (g *getting) request(src address) *gridloomv1.GetObjectRequest {
	return &gridloomv1.GetObjectRequest{Bucket: src.bucket, Key: src.key, Range: g.part, Conditions: g.conditions, MaxAge: g.stale.proto(),
		Verify: g.verify, ContentInHeader: true}
}

// print tells what was fetched and where it is.
func (g *getting) print(h *gridloomv1.GetObjectHeader, file string) error {
	j := toJSON(h.GetObject())
	j.File = file
	if h.GetLength() != j.Size {
		j.Offset, j.Length = &h.Offset, &h.Length
	}
	return g.app.out.print(j, func() string {
		return fmt.Sprintf("%s → %s  %s\n", shown(j.Bucket+"/"+j.Key), shown(file), byteSize(h.GetLength()))
	})
}

// get streams an object, or a part of one, to w, and verifies that it is what
// was stored: a whole object by its checksums, a part by its length. begin, if
// not nil, is told what is to come.
func (c *client) get(ctx context.Context, req *gridloomv1.GetObjectRequest, w io.Writer, m *meter, begin func(*gridloomv1.GetObjectHeader)) (h *gridloomv1.GetObjectHeader, err error) {
	ctx, dog, cancel := c.watch(ctx)
	defer cancel()
	defer func() { err = stalled(ctx, err) }()
	dog.wake()
	stream, err := c.objects.GetObject(ctx, req)
	if err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if h = first.GetHeader(); h == nil {
		return nil, errors.New("the node sent bytes before the header")
	}
	if begin != nil {
		begin(h)
	}
	sums, got := newChecksums(), int64(0)
	defer func() {
		if err != nil {
			m.add(-int(got))
		}
	}()
	for chunk := h.GetContent(); ; {
		if got += int64(len(chunk)); got > h.GetLength() {
			return nil, fmt.Errorf("the node sent more than the %d bytes it announced", h.GetLength())
		}
		sums.Write(chunk)
		if _, err := w.Write(chunk); err != nil {
			return nil, err
		}
		m.add(len(chunk))
		dog.wake()
		msg, err := stream.Recv()
		dog.sleep()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		chunk = msg.GetChunk()
	}
	h.Content = nil // it is where it belongs
	if got < h.GetLength() {
		return nil, fmt.Errorf("the node stopped after %d of %d bytes", got, h.GetLength())
	}
	if o := h.GetObject(); got == o.GetSize() {
		if err := sums.verify(o); err != nil {
			return nil, err
		}
	}
	return h, nil
}
