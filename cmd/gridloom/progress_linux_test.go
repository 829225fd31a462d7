package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// terminal opens a pseudo-terminal, 80 by 24: what is written to tty is read
// from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

// On a terminal a transfer has a bar, which is gone in the end, and with --json
// it has none. That there is none elsewhere, every other test shows.
func TestMeterOnTerminal(t *testing.T) {
	seen := make(chan struct{})
	l := &liar{put: func(s grpc.ClientStreamingServer[gridloomv1.PutObjectRequest, gridloomv1.PutObjectResponse]) error {
		for {
			msg, err := s.Recv()
			if err != nil {
				return err
			}
			if msg.GetHeader().GetContent() != nil {
				<-seen
				return s.SendAndClose(&gridloomv1.PutObjectResponse{Object: &gridloomv1.Object{Bucket: "b", Key: "k", Size: 4096}})
			}
		}
	}}
	env := l.listen(t)
	name := filepath.Join(t.TempDir(), "file")
	writeFile(t, name, strings.Repeat("x", 4096))

	screen, tty := terminal(t)
	shown := make(chan string, 1)
	go func() {
		var all bytes.Buffer
		buf := make([]byte, 4096)
		for once := seen; ; {
			n, err := screen.Read(buf)
			all.Write(buf[:n])
			if once != nil && strings.Contains(all.String(), "4.00 KiB / 4.00 KiB [") {
				close(once)
				once = nil
			}
			if err != nil || bytes.HasSuffix(all.Bytes(), []byte("END")) {
				shown <- all.String()
				return
			}
		}
	}()
	var out bytes.Buffer
	if code := run(t.Context(), []string{"put", name, "b/k"}, strings.NewReader(""), &out, tty, env); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	mark := func(text string) {
		if _, err := io.WriteString(tty, text); err != nil {
			t.Fatal(err)
		}
	}
	mark("MID")
	if code := run(t.Context(), []string{"put", "--json", name, "b/k"}, strings.NewReader(""), &out, tty, env); code != exitDone {
		t.Errorf("--json: exit code %d", code)
	}
	mark("END")
	text := <-shown
	if last := text[strings.LastIndex(text, "\r"):]; last != "\rMIDEND" {
		t.Errorf("something stayed on the line: %q", last)
	}
	if !strings.Contains(text, "100.00%") {
		t.Errorf("shown: %q", text)
	}
}
