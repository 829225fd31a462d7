package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// yamux gives streams only; on each, messages are prefixed by their length.
// The first byte of a stream says what it is.
const (
	yamuxEcho byte = iota + 1
	yamuxSink
)

func yamuxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	return c
}

func serveYamux(setup) (farEnd, error) {
	ln, err := loopback()
	if err != nil {
		return nil, err
	}
	return accept(ln, func(conn net.Conn) {
		session, err := yamux.Server(conn, yamuxConfig())
		if err != nil {
			return
		}
		defer session.Close()
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			st, err := session.AcceptStream()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer st.Close()
				serveYamuxStream(st)
			})
		}
	}), nil
}

func serveYamuxStream(st *yamux.Stream) {
	var kind [1]byte
	if _, err := io.ReadFull(st, kind[:]); err != nil {
		return
	}
	if kind[0] == yamuxEcho {
		if msg, err := readPrefixed(st, nil); err == nil {
			writePrefixed(st, nil, msg)
		}
		return
	}
	r := bufio.NewReaderSize(st, 64<<10)
	for count := uint64(0); ; count++ {
		msg, err := readPrefixed(r, nil)
		if err == nil && len(msg) == 0 { // the end
			writePrefixed(st, nil, binary.LittleEndian.AppendUint64(nil, count))
			return
		}
		if err != nil {
			return
		}
	}
}

// maxPrefixed bounds a message.
const maxPrefixed = 16 << 20

func readPrefixed(r io.Reader, dst []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n > maxPrefixed {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	_, err := io.ReadFull(r, dst[:n])
	return dst[:n], err
}

// writePrefixed writes lead, length and message at once: each Write is a
// frame.
func writePrefixed(w io.Writer, lead, msg []byte) error {
	b := make([]byte, 0, len(lead)+4+len(msg))
	b = append(b, lead...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(msg)))
	_, err := w.Write(append(b, msg...))
	return err
}

type yamuxClient struct{ session *yamux.Session }

func dialYamux(ctx context.Context, _ setup, addr string) (client, error) {
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	session, err := yamux.Client(conn, yamuxConfig())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &yamuxClient{session}, nil
}

func (c *yamuxClient) caller(context.Context) (caller, error) {
	return func(ctx context.Context, req []byte) ([]byte, error) {
		st, err := c.session.OpenStream()
		if err != nil {
			return nil, err
		}
		defer st.Close()
		if deadline, ok := ctx.Deadline(); ok {
			st.SetDeadline(deadline)
		}
		if err := writePrefixed(st, []byte{yamuxEcho}, req); err != nil {
			return nil, err
		}
		return readPrefixed(st, nil)
	}, nil
}

func (c *yamuxClient) flow(ctx context.Context) (flow, error) {
	st, err := c.session.OpenStream()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		st.SetDeadline(deadline)
	}
	f := &yamuxFlow{st, bufio.NewWriterSize(st, 64<<10)}
	return f, f.w.WriteByte(yamuxSink)
}

func (c *yamuxClient) close() error { return c.session.Close() }

// yamuxFlow gathers small messages in a buffer, as a user has to.
type yamuxFlow struct {
	st *yamux.Stream
	w  *bufio.Writer
}

func (f *yamuxFlow) send(msg []byte) error {
	var head [4]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(msg)))
	if _, err := f.w.Write(head[:]); err != nil {
		return err
	}
	_, err := f.w.Write(msg)
	return err
}

func (f *yamuxFlow) finish() (int64, error) {
	defer f.st.Close()
	if err := errors.Join(f.send(nil), f.w.Flush()); err != nil {
		return 0, err
	}
	f.st.SetReadDeadline(time.Now().Add(10 * time.Second))
	msg, err := readPrefixed(f.st, nil)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(msg)), nil
}
