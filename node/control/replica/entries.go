package replica

import (
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Entries are most of what goes to other nodes and into the log. They are encoded
// and decoded here by hand: protobuf's own functions copy an entry's data once
// more, and make an object of each of its numbers. The bytes are protobuf's.

// Numbers of raft's fields, of Message and of Entry.
const (
	messageEntries = 7

	entryType  = 1
	entryTerm  = 2
	entryIndex = 3
	entryData  = 4
)

// sizeEntry is how many bytes appendEntry adds.
func sizeEntry(e *pb.Entry) (n int) {
	if e.Type != nil {
		n += 1 + protowire.SizeVarint(uint64(e.GetType()))
	}
	if e.Term != nil {
		n += 1 + protowire.SizeVarint(e.GetTerm())
	}
	if e.Index != nil {
		n += 1 + protowire.SizeVarint(e.GetIndex())
	}
	if e.Data != nil {
		n += 1 + protowire.SizeBytes(len(e.GetData()))
	}
	return n
}

func appendEntry(b []byte, e *pb.Entry) []byte {
	if e.Type != nil {
		b = protowire.AppendVarint(protowire.AppendTag(b, entryType, protowire.VarintType), uint64(e.GetType()))
	}
	if e.Term != nil {
		b = protowire.AppendVarint(protowire.AppendTag(b, entryTerm, protowire.VarintType), e.GetTerm())
	}
	if e.Index != nil {
		b = protowire.AppendVarint(protowire.AppendTag(b, entryIndex, protowire.VarintType), e.GetIndex())
	}
	if e.Data != nil {
		b = protowire.AppendBytes(protowire.AppendTag(b, entryData, protowire.BytesType), e.GetData())
	}
	return b
}

// decoded is an entry with its numbers, in one piece of memory.
type decoded struct {
	pb.Entry
	term, index uint64
	kind        pb.EntryType
}

// decode reads an entry. Its data is b's memory.
func (e *decoded) decode(b []byte) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case number == entryData && kind == protowire.BytesType:
			data, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			e.Data, b = data[:len(data):len(data)], b[n:]
		case number >= entryType && number <= entryIndex && kind == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			switch number {
			case entryType:
				e.kind, e.Type = pb.EntryType(int32(v)), &e.kind
			case entryTerm:
				e.term, e.Term = v, &e.term
			case entryIndex:
				e.index, e.Index = v, &e.index
			}
		default: // of a newer program; protobuf would pass it over, too
			n := protowire.ConsumeFieldValue(number, kind, b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
		}
	}
	return nil
}

// sizeMessage is how many bytes appendBody adds to a batch.
func sizeMessage(m *pb.Message) (n int) {
	for _, e := range m.GetEntries() {
		n += 1 + protowire.SizeBytes(sizeEntry(e))
	}
	entries := m.GetEntries()
	m.Entries = nil
	n += proto.Size(m)
	m.Entries = entries
	return n
}

// appendBody adds a message whose sizeMessage was asked for before.
func appendBody(b []byte, m *pb.Message) []byte {
	entries := m.GetEntries()
	m.Entries = nil
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	m.Entries = entries
	if err != nil {
		panic("replica: " + err.Error())
	}
	for _, e := range entries {
		b = protowire.AppendTag(b, messageEntries, protowire.BytesType)
		b = appendEntry(protowire.AppendVarint(b, uint64(sizeEntry(e))), e)
	}
	return b
}

// parseMessage reads a message. Its entries' data is b's memory.
func parseMessage(b []byte) (*pb.Message, error) {
	var entries [][]byte
	var rest []byte // everything else
	for left := b; len(left) > 0; {
		number, kind, n := protowire.ConsumeTag(left)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(number, kind, left[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		if number == messageEntries && kind == protowire.BytesType {
			entry, _ := protowire.ConsumeBytes(left[n:])
			entries = append(entries, entry)
		} else {
			rest = append(rest, left[:n+m]...)
		}
		left = left[n+m:]
	}
	message := new(pb.Message)
	if err := proto.Unmarshal(rest, message); err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		message.Entries = make([]*pb.Entry, len(entries))
		block := make([]decoded, len(entries))
		for i, entry := range entries {
			if err := block[i].decode(entry); err != nil {
				return nil, err
			}
			message.Entries[i] = &block[i].Entry
		}
	}
	return message, nil
}
