//go:build !unix

package e2e

import "testing"

const noSignals = "this system can't stop a process and let it go on"

func (p *process) pause(t *testing.T) { t.Skip(noSignals) }

func (p *process) resume(t *testing.T) { t.Skip(noSignals) }

func (p *process) terminate(t *testing.T) { t.Skip(noSignals) }
