package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) putCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put SOURCE... BUCKET[/KEY]",
		Short: "Store files, folders or standard input",
		Long: `Store files as objects. The last argument says where: a key for one source,
or, as a bucket alone or with a slash at the end, "into this": each source
then keeps its own name below it. "-" is standard input, which needs a key.

With -r a source may be a folder. Every regular file below it is stored, many
at once, under the key with its path in the folder added. FOLDER/. is the
folder's contents without its name. Symbolic links and special files in a
folder are not stored; each is named on standard error.

What is read is checked on arrival by SHA-256 and CRC-64/NVME before the
object becomes visible; a put that is cut off leaves nothing behind. With
--checksum it is stored only if it has the sum that you know it by: sha256,
sha512, md5, crc32c or crc64nvme.`,
		Example: `  gridloom put report.pdf docs/2026/report.pdf
  gridloom put a.jpg b.jpg photos/summer/
  gridloom put -r ./site web         (site/index.html is web/site/index.html)
  gridloom put -r ./site/. web       (site/index.html is web/index.html)
  gridloom put -r ./site web/v2      (site/index.html is web/v2/index.html)
  pg_dump shop | gridloom put - backups/shop.sql --content-type application/sql
  gridloom put disk.img images/disk.img --checksum md5=9e107d9d372bb6826bd81d3542a419d6
  gridloom put new.cfg etc/app.cfg --if-match 9f86d0…   (only if nobody changed it)
  gridloom put new.cfg etc/app.cfg --if-none-match '*'  (only if there is none)`,
		Args: arguments(2, -1),
	}
	recursive := cmd.Flags().BoolP("recursive", "r", false, "store folders with all that is in them")
	parallel := parallelFlag(cmd)
	headers := headerFlags(cmd)
	sums := cmd.Flags().StringArray("checksum", nil, "store only what has the checksum `ALGORITHM=HEX`; of one source, repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		header, err := headers()
		if err != nil {
			return err
		}
		for _, text := range *sums {
			sum, err := parseChecksum(text)
			if err != nil {
				return err
			}
			header.Checksums = append(header.Checksums, sum)
		}
		p := &putting{app: a, client: c, header: header, recursive: *recursive}
		dest, err := parseAddress(args[len(args)-1])
		if err != nil {
			return err
		}
		return p.run(ctx, cmd, *parallel, args[:len(args)-1], dest)
	})
}

// headerFlags adds the flags that describe an object, and returns what reads
// them.
func headerFlags(cmd *cobra.Command) func() (*gridloomv1.PutObjectHeader, error) {
	f := cmd.Flags()
	h := &gridloomv1.PutObjectHeader{}
	f.StringVar(&h.ContentType, "content-type", "", "media `TYPE` (default by the file name's extension)")
	f.StringVar(&h.CacheControl, "cache-control", "", "Cache-Control `VALUE` to serve it with")
	f.StringVar(&h.ContentDisposition, "content-disposition", "", "Content-Disposition `VALUE` to serve it with")
	f.StringVar(&h.ContentEncoding, "content-encoding", "", "Content-Encoding `VALUE` to serve it with")
	f.StringVar(&h.ContentLanguage, "content-language", "", "Content-Language `VALUE` to serve it with")
	meta := f.StringArray("meta", nil, "user metadata `NAME=VALUE`; repeatable")
	f.StringSlice("if-match", nil, "store only over an object with this `ETAG`; repeatable")
	f.StringSlice("if-none-match", nil, "don't store over an object with this `ETAG`, or with '*' over any; repeatable")
	return func() (*gridloomv1.PutObjectHeader, error) {
		metadata, err := pairs("meta", *meta)
		if err != nil {
			return nil, err
		}
		h.Metadata = metadata
		h.Conditions, err = conditions(cmd)
		return h, err
	}
}

// conditions reads --if-match and --if-none-match; nil is none.
func conditions(cmd *cobra.Command) (*gridloomv1.Conditions, error) {
	match, err := etags(cmd, "if-match")
	if err != nil {
		return nil, err
	}
	noneMatch, err := etags(cmd, "if-none-match")
	if err != nil || len(match) == 0 && len(noneMatch) == 0 {
		return nil, err
	}
	return &gridloomv1.Conditions{IfMatch: match, IfNoneMatch: noneMatch}, nil
}

// putting is one gridloom put.
type putting struct {
	app       *app
	client    *client
	header    *gridloomv1.PutObjectHeader // what all objects have in common
	recursive bool
	meter     *meter
}

// item is one argument of put, looked at before anything is sent.
type item struct {
	text string // as it was given; "-" is standard input
	info fs.FileInfo
}

// name is what a source is called below "into this"; "" is nothing, for a
// folder that was given as . or with /. at its end.
func (s item) name() string {
	last := path.Base(strings.TrimRight(filepath.ToSlash(s.text), "/"))
	if last == "." || last == ".." || last == "/" || filepath.VolumeName(last) != "" {
		return ""
	}
	return last
}

// look checks all sources against the destination. Nothing has been sent when
// it finds something wrong.
func (p *putting) look(args []string, dest address) ([]item, error) {
	if len(args) > 1 && !dest.folder() {
		return nil, usageErrorf("%s is one object, and there are %d sources; %s/ stores them below it", dest, len(args), dest)
	}
	sources := make([]item, len(args))
	for i, text := range args {
		sources[i].text = text
		if text == "-" {
			if len(args) > 1 || dest.folder() {
				return nil, usageErrorf("standard input has no name: give its object's as BUCKET/KEY, and no other source")
			}
			continue
		}
		info, err := os.Stat(text)
		if err != nil {
			return nil, err
		}
		if info.IsDir() && !p.recursive {
			return nil, usageErrorf("%s is a folder; -r stores it with all that is in it", text)
		}
		sources[i].info = info
	}
	return sources, nil
}

func (p *putting) run(ctx context.Context, cmd *cobra.Command, parallel int, args []string, dest address) error {
	sources, err := p.look(args, dest)
	if err != nil {
		return err
	}
	if len(sources) == 1 && (sources[0].info == nil || !sources[0].info.IsDir()) {
		return p.putOne(ctx, sources[0], dest)
	}
	if len(p.header.GetChecksums()) > 0 {
		return usageErrorf("--checksum is of one file or stream")
	}
	b, err := p.app.newBatch(ctx, p.client, cmd, parallel)
	if err != nil {
		return err
	}
	p.meter = p.app.newMeter(0)
	defer p.meter.stop()
	for _, s := range sources {
		if s.info.IsDir() {
			p.walk(b, s, dest)
			continue
		}
		p.meter.expect(s.info.Size())
		b.do(func(ctx context.Context) error {
			f, err := os.Open(s.text)
			if err != nil {
				return err
			}
			return p.putFile(ctx, f, s.text, dest.into(s.name()))
		})
	}
	return b.wait(ctx)
}

// putOne stores a single file or stream.
func (p *putting) putOne(ctx context.Context, s item, dest address) error {
	if s.text == "-" {
		p.meter = p.app.newMeter(-1)
		defer p.meter.stop()
		return p.send(ctx, p.app.stdin, -1, "-", dest)
	}
	f, err := os.Open(s.text)
	if err != nil {
		return err
	}
	size := int64(-1)
	if s.info.Mode().IsRegular() {
		size = s.info.Size()
	}
	p.meter = p.app.newMeter(size)
	defer p.meter.stop()
	return p.putFile(ctx, f, s.text, dest.into(s.name()))
}

// walk stores the files of a folder. It opens the folder once and everything
// else through that, so that nothing outside is read, whatever is done to the
// folder meanwhile.
func (p *putting) walk(b *batch, s item, dest address) {
	root, err := os.OpenRoot(s.text)
	if err != nil {
		b.fail(err)
		return
	}
	defer root.Close() // files that are open stay so
	prefix := dest.prefix()
	if name := s.name(); dest.folder() && name != "" {
		prefix += name + "/"
	}
	err = fs.WalkDir(root.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		file := filepath.Join(s.text, filepath.FromSlash(rel))
		switch {
		case err != nil:
			b.fail(about(shown(file), err))
		case d.IsDir():
		case !d.Type().IsRegular():
			b.note(&skippedError{fmt.Sprintf("%s: not stored: it is %s", shown(file), kindOf(d.Type()))})
		case !utf8.ValidString(rel):
			b.fail(fmt.Errorf("%q: not stored: its name is not UTF-8", file))
		default:
			f, err := root.Open(rel)
			if err != nil {
				b.fail(about(shown(file), err))
				break
			}
			if info, err := f.Stat(); err == nil {
				p.meter.expect(info.Size())
			}
			if !b.do(func(ctx context.Context) error { return p.putFile(ctx, f, file, address{dest.bucket, prefix + rel}) }) {
				f.Close()
			}
		}
		return b.ctx.Err()
	})
	if err != nil && b.ctx.Err() == nil {
		b.fail(err)
	}
}

// kindOf names what is no regular file.
func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

// putFile stores an open file and closes it.
func (p *putting) putFile(ctx context.Context, f *os.File, name string, dest address) error {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := int64(-1)
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	return p.send(ctx, f, size, name, dest)
}

// send stores one stream under dest and prints the object. size < 0 is not
// known; name is what the stream is called on this side.
func (p *putting) send(ctx context.Context, from io.Reader, size int64, name string, dest address) error {
	header := proto.CloneOf(p.header)
	header.Bucket, header.Key = dest.bucket, dest.key
	if size >= 0 {
		header.Size = &size
	}
	if header.ContentType == "" {
		header.ContentType = mime.TypeByExtension(path.Ext(dest.key))
	}
	o, err := p.client.put(ctx, header, from, p.meter)
	if err != nil {
		return about(shown(name), err)
	}
	j := toJSON(o)
	j.File = name
	return p.app.out.print(j, func() string {
		return fmt.Sprintf("%s → %s  %s\n", shown(name), shown(dest.String()), byteSize(j.Size))
	})
}

// about puts the name of a thing before an error, in place of the paths that
// the system's errors carry: parts of that name, or of a temporary one.
func about(name string, err error) error {
	if op, cause, ok := systemError(err); ok {
		return fmt.Errorf("%s: %s: %w", name, op, cause)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// aboutFile is about for the system's errors; others it leaves as they are.
func aboutFile(name string, err error) error {
	if _, _, ok := systemError(err); ok {
		return about(shown(name), err)
	}
	return err
}

// systemError takes an error of a file apart.
func systemError(err error) (op string, cause error, ok bool) {
	var (
		path *fs.PathError
		link *os.LinkError
	)
	switch {
	case errors.As(err, &path):
		return path.Op, path.Err, true
	case errors.As(err, &link):
		return link.Op, link.Err, true
	}
	return "", nil, false
}
