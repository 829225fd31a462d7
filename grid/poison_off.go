//go:build !race && !gridpoison

package grid

const poisonRecycled = false
