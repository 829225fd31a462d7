//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/gridloom/gridloom/internal/bench"
)

//go:embed nginx.conf.tmpl
var nginxConf string

// nginxTimeout bounds its beginning and its end.
const nginxTimeout = 30 * time.Second

// errNoNginx says why rows have nothing to be compared with.
var errNoNginx = errors.New("nginx is not installed; `internal/tools/install.sh nginx` does it")

// findNginx looks where Debian puts it too, which is not on everybody's path.
func findNginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoNginx
}

func nginxVersion() string {
	program, err := findNginx()
	if err != nil {
		return "nginx is not installed"
	}
	b, err := exec.Command(program, "-v").CombinedOutput()
	_, version, ok := strings.Cut(strings.TrimSpace(string(b)), ": ")
	if err != nil || !ok {
		return "nginx of a version not known"
	}
	return version
}

// nginx is a server of the files below root.
type nginx struct {
	cmd  *exec.Cmd
	dir  string
	root string
	addr string
}

func startNginx(ctx context.Context, dir string) (_ *nginx, err error) {
	program, err := findNginx()
	if err != nil {
		return nil, err
	}
	addrs, err := bench.Reserve(1)
	if err != nil {
		return nil, err
	}
	n := &nginx{dir: dir, root: filepath.Join(dir, "root"), addr: addrs[0]}
	if err := os.MkdirAll(n.root, 0o755); err != nil {
		return nil, err
	}
	conf, err := n.configuration()
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, conf, 0o644); err != nil {
		return nil, err
	}
	n.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, "-c", name, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // its workers end with it
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	if err := n.waitReady(ctx); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *nginx) configuration() ([]byte, error) {
	t, err := template.New("nginx.conf").Option("missingkey=error").Parse(nginxConf)
	if err != nil {
		return nil, err
	}
	values := map[string]string{"Dir": n.dir, "Root": n.root, "Addr": n.addr, "User": ""}
	if os.Getuid() == 0 { // or the workers would be somebody who can't read our directory
		me, err := user.Current()
		if err != nil {
			return nil, err
		}
		values["User"] = me.Username
	}
	var b bytes.Buffer
	err = t.Execute(&b, values)
	return b.Bytes(), err
}

// waitReady waits until it accepts.
func (n *nginx) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nginxTimeout)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nginx: %w%s", errors.Join(err, context.Cause(ctx)), bench.LogTail(filepath.Join(n.dir, "error.log")))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// processes are the master and its workers, of which it makes more while it
// accepts already.
func (n *nginx) processes() ([]process, error) {
	master := process(n.cmd.Process.Pid)
	workers, err := master.children()
	return append(workers, master), err
}

// close ends it.
func (n *nginx) close() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	kill := time.AfterFunc(nginxTimeout, func() { _ = n.cmd.Process.Kill() })
	defer kill.Stop()
	if err := n.cmd.Wait(); err != nil {
		return fmt.Errorf("nginx: %w%s", err, bench.LogTail(filepath.Join(n.dir, "error.log")))
	}
	return nil
}

// put makes a file.
func (n *nginx) put(path string, content io.Reader) (err error) {
	name := filepath.Join(n.root, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
