//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// apartArgument makes this program one that -congestion has started: the name of its
// parent's network namespace, which it is not in, and the flags come behind it.
const apartArgument = "apart"

// Where the kernel says how it runs TCP, in the network namespace of whoever asks.
const (
	congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"
	receiveFile    = "/proc/sys/net/ipv4/tcp_rmem"
	sendFile       = "/proc/sys/net/ipv4/tcp_wmem"
)

// runApart runs this program again in a network namespace of its own, with the same
// flags: all of its servers are in there, too, and the machine's own is left alone.
func runApart(ctx context.Context, args []string, out io.Writer) error {
	own, err := networkNamespace()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{apartArgument, own}, args...)...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute // its servers end first
	err = cmd.Start()
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("-congestion needs a network namespace of its own, which takes root (CAP_SYS_ADMIN): %w", err)
	}
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// enterApart prepares the namespace that runApart has made: the loopback is up, and
// its connections have that congestion control.
func enterApart(parents, congestion string) error {
	own, err := networkNamespace()
	if err != nil {
		return err
	}
	if own == parents || congestion == "" {
		return errors.New("this is not a network namespace that -congestion has made")
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := os.WriteFile(congestionFile, []byte(congestion), 0o644); err != nil {
		return fmt.Errorf("-congestion %s: %w; there are: %s", congestion, err, available())
	}
	return nil
}

// networkNamespace names the one that this process is in.
func networkNamespace() (string, error) { return os.Readlink("/proc/self/ns/net") }

// available lists the congestion controls that the kernel has.
func available() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// loopbackUp sets the flag of the loopback by which it is up: netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte // the rest of the union
	}{flags: unix.IFF_UP}
	copy(request.name[:], "lo")
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		err = errno
	}
	return errors.Join(err, unix.Close(fd))
}

// tcpFacts says how the kernel runs the connections that are measured.
func tcpFacts() (string, error) {
	congestion, err := os.ReadFile(congestionFile)
	if err != nil {
		return "", err
	}
	receive, err1 := mostBuffer(receiveFile)
	send, err2 := mostBuffer(sendFile)
	return fmt.Sprintf("congestion control %s; buffers of a connection up to %d KiB to receive, %d KiB to send",
		bytes.TrimSpace(congestion), receive>>10, send>>10), errors.Join(err1, err2)
}

// mostBuffer gives the last of a file's three numbers, up to which a buffer grows.
func mostBuffer(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) != 3 {
		return 0, fmt.Errorf("%s: %q", file, b)
	}
	return strconv.Atoi(fields[2])
}
