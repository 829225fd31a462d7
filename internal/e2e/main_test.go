package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the program under test, built by TestMain.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gridloom-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "gridloom")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/gridloom/gridloom/cmd/gridloom")...)
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the program:", err)
	} else if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// ports hands out ranges of ports.
var ports struct {
	sync.Mutex
	next int
}

// freeBase finds a port such that the ports of n nodes from there on are free:
// base+10*i+{0,1,2}. It gives none out twice, as a node may be down for a
// while, and begins below those that systems give to whoever dials.
func freeBase(t *testing.T, n int) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = 20000 + os.Getpid()%1000*10
	}
	for ports.next < 60000 {
		base := ports.next
		ports.next += 10 * n
		if portsFree(base, n) {
			return base
		}
	}
	t.Fatal("no free range of ports")
	return 0
}

func portsFree(base, n int) bool {
	for i := range n {
		for k := range 3 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+10*i+k))
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}

// process is the program, running.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // why it ended; read after done
	out  *tail
}

// start runs the program in the background. It is killed when the test ends.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return startProgram(t, binary, env, args...)
}

// startProgram is start for another build of the program.
func startProgram(t *testing.T, program string, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{}), out: &tail{}}
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(binary), strings.Join(args, " "), p.out)
		}
	})
	return p
}

// kill ends the process with SIGKILL, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// interrupt is Ctrl-C: it returns how the process ended.
func (p *process) interrupt(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(2 * time.Minute):
		t.Fatal("still running two minutes after an interrupt")
		return nil
	}
}

// cleanEnv is the environment without what would configure the program.
func cleanEnv() []string {
	// The race detector sleeps for a second at exit, or else.
	env := []string{"GORACE=atexit_sleep_ms=0"}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GRIDLOOM_") {
			env = append(env, kv)
		}
	}
	return env
}

// result is what a command came to.
type result struct {
	stdout, stderr string
	code           int
}

// run runs the program to its end.
func run(t *testing.T, env []string, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("gridloom %s: %v", strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// mustRun is run for what has to work; it returns stdout.
func mustRun(t *testing.T, env []string, args ...string) string {
	t.Helper()
	r := run(t, env, nil, args...)
	if r.code != 0 {
		t.Fatalf("gridloom %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// waitReady waits until the node whose HTTP listener is at addr says it is.
func waitReady(t *testing.T, p *process, addr string) {
	t.Helper()
	waitAnswer(t, p, addr, "/readyz")
}

// waitAnswer waits until a health path of the node at addr answers 200.
func waitAnswer(t *testing.T, p *process, addr, path string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	var last []byte
	for {
		resp, err := client.Get("http://" + addr + path)
		if err == nil {
			last, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-p.done:
			t.Fatalf("the process ended: %v\n%s", p.err, p.out)
		case <-limit:
			t.Fatalf("%s%s is not 200 after three minutes: %v %s\n%s", addr, path, err, last, p.out)
		case <-tick.C:
		}
	}
}
