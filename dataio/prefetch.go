package dataio

import "context"

// Prefetch returns when the n bytes from off on, to the end if n is negative,
// are in memory, so that a Section over them doesn't wait for the drive. If the
// context ends before, it returns the context's error, and the read goes on
// without it.
func (f *File) Prefetch(ctx context.Context, off, n int64) error {
	n, err := f.clip("prefetch", off, n)
	if err != nil || n == 0 {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		buf := new([copyBufferBytes]byte)
		for end := off + n; off < end; {
			b := buf[:min(copyBufferBytes, end-off)]
			if err := f.readFull(b, off); err != nil {
				done <- f.d.readError("prefetch", f.id, err)
				return
			}
			off += int64(len(b))
		}
		done <- nil
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}
