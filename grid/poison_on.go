//go:build race || gridpoison

package grid

// poisonRecycled is the debug mode: on with -race and with -tags gridpoison.
const poisonRecycled = true
