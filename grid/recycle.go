package grid

// emptyMessage is what an empty, non-nil payload arrives as.
var emptyMessage = []byte{}

// newMessage copies a payload out of the read buffer, for the user to keep.
// append does not clear what it is about to overwrite.
func newMessage(payload []byte) []byte {
	if len(payload) == 0 {
		return emptyMessage
	}
	return append([]byte(nil), payload...)
}

// poison overwrites recycled memory in debug builds, so that whoever still
// looks at it is found out.
func poison(b []byte) {
	if !poisonRecycled {
		return
	}
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xDB
	}
}
