package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A batch between nodes is messages one after the other: the group and the
// message's length as uvarints, then the message, raft's protobuf.

func appendMessage(batch []byte, out outgoing) []byte {
	batch = binary.AppendUvarint(batch, uint64(out.group))
	batch = binary.AppendUvarint(batch, uint64(proto.Size(out.message)))
	batch, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(batch, out.message)
	if err != nil {
		panic("replica: " + err.Error())
	}
	return batch
}

var errBatch = errors.New("replica: malformed batch of messages")

// parseMessages takes a batch apart. The messages share its memory.
func parseMessages(batch []byte) (all []outgoing, err error) {
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
		m := new(pb.Message)
		if err := proto.Unmarshal(batch[:n], m); err != nil {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		batch = batch[n:]
		all = append(all, outgoing{GroupID(g), m})
	}
	return all, nil
}
