package control

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/gridloom/gridloom/node/fault"
)

// maxVoters is the largest number of nodes that a group's majorities are
// counted over: more would make every write wait for more, and no write safer
// than against the loss of two.
const maxVoters = 5

// formingHint is after how long a node that nobody greets says what that may be.
const formingHint = 10 * time.Second

// voterCount is how many of n nodes vote: the largest odd number, since an even
// one bears no more losses than the odd one below it.
func voterCount(n int) int {
	n = min(n, maxVoters)
	if n > 0 && n%2 == 0 {
		n--
	}
	return n
}

// founders lists the nodes that the configuration names, sorted.
func (c *Control) founders() []founder {
	all := make([]founder, 0, len(c.peers))
	for _, name := range slices.Sorted(maps.Keys(c.peers)) {
		all = append(all, founder{Name: name, URL: c.peers[name]})
	}
	return all
}

// found makes the states that the mesh begins with. ids are those of all
// founders. Every founder makes the same: who votes follows from the names.
func (c *Control) found(ids map[string]uint64) error {
	founders := c.founders()
	voters := voterCount(len(founders))
	system, data := new(pb.ConfState), new(pb.ConfState)
	nodes := make([]Node, len(founders))
	for i, f := range founders {
		id := ids[f.Name]
		nodes[i] = Node{Name: f.Name, URL: f.URL, RaftID: id}
		if i < voters {
			system.Voters, data.Voters = append(system.Voters, id), append(data.Voters, id)
		} else {
			system.Learners = append(system.Learners, id)
		}
	}
	for _, conf := range []*pb.ConfState{system, data} {
		slices.Sort(conf.Voters)
		slices.Sort(conf.Learners)
		conf.AutoLeave = new(false)
	}
	if !slices.Contains(data.Voters, c.raftID) {
		data = nil
	}
	// The data group first: a node that has the system group's state isn't
	// blank any more.
	for _, g := range []struct {
		s    *state
		conf *pb.ConfState
	}{{c.data, data}, {c.system, system}} {
		if g.conf == nil || g.s.Position().Index > 0 {
			continue
		}
		conf, err := proto.MarshalOptions{Deterministic: true}.Marshal(g.conf)
		if err != nil {
			return err
		}
		if err := g.s.bootstrap(conf, nodes); err != nil {
			return fmt.Errorf("beginning group %s: %w", groupName(g.s.group), err)
		}
	}
	c.log.Info("the mesh begins", "nodes", len(founders), "voters", voters)
	if len(founders) > 1 && voters < len(founders) && len(founders) < maxVoters {
		c.log.Warn("an even number of nodes bears no more losses than one less", "nodes", len(founders), "voters", voters)
	}
	return nil
}

// sameFounders tells whether two nodes' configurations name the same nodes.
func sameFounders(a, b []founder) bool {
	return slices.EqualFunc(a, b, func(x, y founder) bool { return x.Name == y.Name && x.URL == y.URL })
}

func founderNames(all []founder) string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name + "=" + f.URL
	}
	return strings.Join(names, ",")
}

// judge says what a blank node makes of what it has heard: that it can begin
// with these ids; or that it waits, and for what; or that waiting won't help.
func (c *Control) judge(heard map[string]*greeting) (ids map[string]uint64, wait error) {
	mine := c.founders()
	ids = map[string]uint64{c.self: c.raftID}
	var missing []string
	begun := ""
	for _, f := range mine {
		if f.Name == c.self {
			continue
		}
		g := heard[f.Name]
		switch {
		case g == nil:
			missing = append(missing, f.Name)
			continue
		case !g.Blank:
			if begun != "" && g.Deployment != "" && heard[begun].Deployment != "" && g.Deployment != heard[begun].Deployment {
				return nil, fault.New(fault.WrongMesh, "peers", "node %s is of mesh %s, and node %s of %s", begun, heard[begun].Deployment, f.Name, g.Deployment)
			}
			if begun == "" || g.Epoch > heard[begun].Epoch {
				begun = f.Name // who knows the latest: another may have left, or be gone
			}
		case !sameFounders(g.Founders, mine):
			return nil, fault.New(fault.Conflict, "peers", "of node %s are %s, and this node's are %s: they must be the same", f.Name, founderNames(g.Founders), founderNames(mine))
		}
		ids[f.Name] = g.RaftID
	}
	if begun != "" {
		return c.judgeBegun(begun, heard[begun], mine, ids)
	}
	if len(missing) > 0 {
		detail := "is being formed: waiting for node " + strings.Join(missing, ", ")
		if last := c.conn(missing[0]).Stats().LastError; last != nil {
			detail += fmt.Sprintf(" (%v)", last)
		}
		if len(missing) == len(mine)-1 && time.Since(c.meetings.began) > formingHint {
			// A mesh doesn't talk to nodes that it doesn't know.
			detail += fmt.Sprintf("; if they are a mesh already, let this node in there by: gridloom node join %s %s", c.self, c.peers[c.self])
		}
		return nil, fault.New(fault.Waiting, "mesh", "%s", detail)
	}
	return ids, nil
}

// judgeBegun is judge for a mesh that has begun, as a node of it says.
func (c *Control) judgeBegun(name string, g *greeting, mine []founder, ids map[string]uint64) (map[string]uint64, error) {
	bound := make([]founder, 0, len(g.Founders))
	all := true
	for _, f := range g.Founders {
		bound = append(bound, founder{Name: f.Name, URL: f.URL})
		if f.Name == c.self {
			continue
		}
		if id, ok := ids[f.Name]; ok && id != f.RaftID {
			return nil, fault.New(fault.Conflict, nodeSubject(f.Name), "has begun anew since node %s began a mesh with it", name)
		}
		ids[f.Name] = f.RaftID
		all = all && f.RaftID != 0
	}
	switch {
	case g.Bound == c.raftID && g.Deployment == "" && sameFounders(bound, mine) && all:
		return ids, nil // it has begun with us, and we were slower
	case g.Bound == c.raftID:
		c.believe(name, g)
		return nil, joining(errBound)
	case g.Bound != 0:
		return nil, errOtherID(c.self)
	case !g.Admitted:
		return nil, fault.New(fault.Conflict, nodeSubject(c.self), "isn't part of the mesh that node %s is in; let it in by: gridloom node join %s %s", name, c.self, c.peers[c.self])
	}
	c.believe(name, g)
	return nil, joining(errAdmitted)
}

// What a blank node hears of a mesh that expects it: that it may come in, and
// that it has.
var (
	errAdmitted = errors.New("this node is admitted, and joins")
	errBound    = errors.New("this node has joined, and waits for the leader to bring it up to date")
)

// joining is the error of a node that waits for its part in a mesh.
func joining(state error) error { return fault.Wrap(fault.Waiting, "mesh", state) }
