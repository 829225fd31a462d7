package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A batch between nodes is messages one after the other: the group and the
// message's length as uvarints, then the message, raft's protobuf.

func appendMessage(batch []byte, out outgoing) []byte {
	size := sizeMessage(out.message)
	batch = slices.Grow(batch, 2*binary.MaxVarintLen32+size)
	batch = binary.AppendUvarint(batch, uint64(out.group))
	batch = binary.AppendUvarint(batch, uint64(size))
	return appendBody(batch, out.message)
}

var errBatch = errors.New("replica: malformed batch of messages")

// parseMessages takes a batch apart. Messages that are most of it share its memory.
func parseMessages(batch []byte) (all []outgoing, err error) {
	whole := len(batch)
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(batch)
		if n <= 0 {
			return 0, false
		}
		batch = batch[n:]
		return v, true
	}
	for len(batch) > 0 {
		g, ok := next()
		if !ok || g > uint64(^GroupID(0)) {
			return nil, errBatch
		}
		n, ok := next()
		if !ok || n > uint64(len(batch)) {
			return nil, errBatch
		}
		body := batch[:n]
		if 2*len(body) < whole {
			// What is in the log stays in memory for as long, and entries of a group
			// that has few for months: they must not keep those of another there.
			body = bytes.Clone(body)
		}
		m, err := parseMessage(body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		batch = batch[n:]
		all = append(all, outgoing{GroupID(g), m})
	}
	return all, nil
}

// fromPeers are the messages that come from other nodes. The others are
// between raft and this package.
var fromPeers = []pb.MessageType{
	pb.MsgApp, pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgSnap, pb.MsgHeartbeat, pb.MsgHeartbeatResp,
	pb.MsgTimeoutNow, pb.MsgReadIndex, pb.MsgReadIndexResp, pb.MsgPreVote, pb.MsgPreVoteResp,
}

// check tells what is wrong with a message from a node. Raft takes what it is
// given at its word, and panics where that makes no sense. What is false but
// makes sense can't be told: the nodes of a mesh trust each other so far.
func check(from uint64, m *pb.Message) error {
	kind := m.GetType()
	switch {
	case m.GetFrom() != from:
		return fmt.Errorf("a %v in the name of node %x", kind, m.GetFrom())
	case !slices.Contains(fromPeers, kind) || len(m.GetResponses()) > 0:
		return fmt.Errorf("a %v isn't for others", kind)
	case (m.GetTerm() == 0) != (kind == pb.MsgReadIndex):
		return fmt.Errorf("a %v of term %d", kind, m.GetTerm())
	}
	switch kind {
	case pb.MsgApp:
		return checkEntries(m)
	case pb.MsgReadIndex, pb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 {
			return fmt.Errorf("a %v with %d tokens", kind, len(m.GetEntries()))
		}
	case pb.MsgHeartbeat, pb.MsgHeartbeatResp:
		if n := len(m.GetContext()); n != 0 && n != 8 {
			return fmt.Errorf("a %v with a context of %d bytes", kind, n)
		}
	case pb.MsgSnap:
		at := m.GetSnapshot().GetMetadata()
		if at.GetIndex() == 0 || at.GetTerm() == 0 || at.GetTerm() > m.GetTerm() || len(at.GetConfState().GetVoters()) == 0 {
			return fmt.Errorf("a snapshot at %d of term %d", at.GetIndex(), at.GetTerm())
		}
	}
	return nil
}

// checkEntries tells whether a message's entries follow each other.
func checkEntries(m *pb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("entry %d of term %d follows %d of term %d", e.GetIndex(), e.GetTerm(), index, term)
		}
		switch e.GetType() {
		case pb.EntryNormal:
		case pb.EntryConfChangeV2:
			if err := proto.Unmarshal(e.GetData(), new(pb.ConfChangeV2)); err != nil {
				return fmt.Errorf("entry %d is no change of membership: %w", e.GetIndex(), err)
			}
		default:
			return fmt.Errorf("entry %d is a %v", e.GetIndex(), e.GetType())
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return nil
}
