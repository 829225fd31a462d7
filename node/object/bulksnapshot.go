package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
)

// The index's snapshots go from node to node over the bulk port, too:
//
//	GET /bulk/v1/snapshot/{path}   Range: bytes=a-b, within the file. 206.
//
// What a path means is the index's affair. The node that asks may be about to
// join, and not know the mesh's id yet: its claim has none then.
const bulkSnapshot = BulkPath + "snapshot/"

// isSnapshot tells whether a request is for a file of a snapshot.
func isSnapshot(r *http.Request) bool { return strings.HasPrefix(r.URL.EscapedPath(), bulkSnapshot) }

// serveSnapshot sends a part of a file of a snapshot.
func (s *Service) serveSnapshot(w http.ResponseWriter, r *http.Request) (err error) {
	if r.Method != http.MethodGet {
		return fault.New(fault.MethodNotAllowed, "method", "%s is not known for snapshots", r.Method)
	}
	if s.o.SnapshotFile == nil {
		return fault.New(fault.NotFound, "snapshot", "none is offered here")
	}
	release, err := take(s.readSlots, "bulk reads")
	if err != nil {
		return err
	}
	defer release()
	path, done, err := s.o.SnapshotFile(strings.TrimPrefix(r.URL.EscapedPath(), bulkSnapshot))
	if err != nil {
		return err
	}
	defer done()
	f, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.NotFound, "snapshot", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fault.Wrap(fault.Internal, "snapshot", err)
	}
	off, n, err := parseBulkRange(r.Header.Get("Range"), info.Size())
	if err != nil {
		return err
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return fault.Wrap(fault.Internal, "snapshot", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, info.Size()))
	w.WriteHeader(http.StatusPartialContent)
	rc := http.NewResponseController(w)
	for n > 0 {
		window := min(n, dataio.NextWindowBytes)
		if err := rc.SetWriteDeadline(time.Now().Add(bulkStall)); err != nil {
			panic(http.ErrAbortHandler)
		}
		sent, err := io.Copy(w, io.LimitReader(f, window))
		s.traffic.sent.Add(sent)
		if err != nil || sent != window {
			s.log.Debug("a snapshot's file was not read to its end", "path", path, "err", err)
			// The other end must not take what it has for the whole.
			panic(http.ErrAbortHandler)
		}
		n -= sent
	}
	return nil
}

// FetchSnapshot reads n bytes from offset on of a file of a snapshot that a
// node offers. What was written to w stays written where it fails.
func (s *Service) FetchSnapshot(ctx context.Context, node control.Node, path string, offset, n int64, w io.Writer) error {
	subject := "snapshot of node " + node.Name
	h := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)}}
	c, resp, err := s.bulk.exchange(ctx, node, http.MethodGet, bulkSnapshot+path, h, 0)
	if err != nil {
		return bulkFault(err, subject)
	}
	switch {
	case resp.StatusCode != http.StatusPartialContent:
		err = bulkError(resp, subject)
	case resp.ContentLength != n:
		err = fault.New(fault.Unavailable, subject, "gave an answer that does not fit the question")
	}
	if err != nil {
		s.bulk.release(c, false)
		return err
	}
	stop := c.interrupt(ctx)
	left := n
	for left > 0 && err == nil {
		if err = c.until(ctx, c.SetReadDeadline, bulkStall); err != nil {
			break
		}
		var got int64
		got, err = io.Copy(w, io.LimitReader(c.reader, min(left, dataio.NextWindowBytes)))
		s.traffic.received.Add(got)
		if left -= got; got == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	s.bulk.release(c, stop() && !resp.Close && left == 0)
	if err != nil && !errors.Is(err, context.Canceled) {
		return bulkFault(err, subject)
	}
	return err
}
