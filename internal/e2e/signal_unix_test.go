//go:build unix

package e2e

import (
	"syscall"
	"testing"
)

// pause stops the process where it is: its kernel still takes connections and
// bytes for it.
func (p *process) pause(t *testing.T) { p.signal(t, syscall.SIGSTOP) }

// resume ends a pause.
func (p *process) resume(t *testing.T) { p.signal(t, syscall.SIGCONT) }

// terminate asks the process to stop, as a service manager does.
func (p *process) terminate(t *testing.T) { p.signal(t, syscall.SIGTERM) }

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
