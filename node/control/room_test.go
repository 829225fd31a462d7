package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control/disk"
	"github.com/gridloom/gridloom/node/fault"
)

// smallDisks gives every node of a mesh a disk of its own.
func (m *mesh) smallDisks() (all []*smallDisk) {
	for i := range m.disks {
		d := &smallDisk{FS: m.disks[i]}
		d.free.Store(1 << 40)
		m.disks[i] = d
		all = append(all, d)
	}
	return all
}

// TestLeaderWithoutRoom: a leader whose disk is full hands over to one that has
// room, and the mesh takes what grows, through every node. Leadership doesn't come
// and go with the room, and who has none doesn't stand where another may.
func TestLeaderWithoutRoom(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		disks := m.smallDisks()
		m.openAll()
		was := m.leader(dataGroup)
		b := createBucket(t, was, "bucket")
		for k, free := range []uint64{disk.ReserveBytes - 1, disk.LastBytes - 1} {
			disks[m.index(was)].free.Store(free)
			m.eventually("another leads", func() bool {
				return m.leader(dataGroup) != was && m.leader(systemGroup) != was
			})
			for _, c := range m.running() {
				if _, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: b.Name}}); err != nil {
					t.Errorf("a put begins through %s: %v", c.self, err)
				}
				mustPut(t, c, b, fmt.Sprint(k, c.self), "e")
				if got := etagOf(t, c, b.Name, fmt.Sprint(k, c.self)); got != "e" {
					t.Errorf("%s: %q", c.self, got)
				}
			}
			// A little more room, and a little less: nothing changes.
			now := m.leader(dataGroup)
			term := now.engine.Load().Leader(dataGroup).Term
			for i := range 20 {
				disks[m.index(now)].free.Store(disk.ReserveBytes + uint64(i%2))
				disks[m.index(was)].free.Store(disk.ReserveBytes - 1 + uint64(i%2))
				pause(2 * time.Second)
			}
			if l := now.engine.Load().Leader(dataGroup); !l.Leads || l.Term != term {
				t.Errorf("%s leads in term %d: %t in %d", now.self, term, l.Leads, l.Term)
			}
			for _, d := range disks {
				d.free.Store(1 << 40)
			}
			pause(5 * time.Second)
			was = m.leader(dataGroup)
		}
		// Of two that are left the one with room is elected.
		leader := m.leader(dataGroup)
		tight := m.follower(dataGroup)
		disks[m.index(tight)].free.Store(disk.ReserveBytes - 1)
		pause(5 * time.Second)
		m.kill(m.index(leader))
		m.eventually("the one with room leads", func() bool {
			l := m.leader(dataGroup)
			return l != nil && l != tight && l != leader
		})
		if term := m.leader(dataGroup).engine.Load().Leader(dataGroup).Leads; !term {
			t.Error("it doesn't lead")
		}
	})
}

// TestNobodyHasRoom: where all are full nothing is handed over, and a put is
// refused before its payload is sent.
func TestNobodyHasRoom(t *testing.T) {
	virtual(t, 3, func(t *testing.T, m *mesh) {
		disks := m.smallDisks()
		m.openAll()
		leader := m.leader(dataGroup)
		b := createBucket(t, leader, "bucket")
		pause(5 * time.Second)
		for _, d := range disks {
			d.free.Store(disk.ReserveBytes - 1)
		}
		pause(5 * time.Second)
		leader = m.leader(dataGroup)
		term := leader.engine.Load().Leader(dataGroup).Term
		pause(30 * time.Second)
		for _, c := range m.running() {
			if _, err := c.Read(t.Context(), &Query{Begin: &BeginQuery{Bucket: b.Name}}); fault.KindOf(err) != fault.NoSpace {
				t.Errorf("the beginning of a put through %s: %v", c.self, err)
			}
		}
		if l := leader.engine.Load().Leader(dataGroup); !l.Leads || l.Term != term {
			t.Errorf("leadership has gone, from term %d to %d", term, l.Term)
		}
	})
}
