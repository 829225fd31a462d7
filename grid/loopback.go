package grid

import "net"

// startLoopback gives the connection with ourselves its session: two of them,
// in truth, at the ends of a pipe in memory, so that a call to the own name
// takes the same way as any other.
func (c *Connection) startLoopback() {
	near, far := net.Pipe()
	o := &c.m.o
	peer := peerParams{
		name: c.m.local, instance: c.m.instance,
		maxMessage: o.MaxMessage, reassembly: o.ReassemblyBudget, window: o.SessionWindow,
	}
	info := SessionInfo{Host: c.m.local, RemoteAddr: "loopback", Dialled: true, Secure: true}
	calls := newSession(c.m, c, near, info, peer, featureZeroMask)
	info.Dialled = false
	serves := newSession(c.m, c, far, info, peer, featureZeroMask)
	c.mu.Lock()
	c.current = calls
	c.session.Store(calls)
	c.sessions = 1
	c.setStateLocked(StateConnected)
	c.mu.Unlock()
	c.m.wg.Go(func() { _ = calls.run() })
	c.m.wg.Go(func() { _ = serves.run() })
}
