//go:build !unix

package node

// mountPoint is not known here: a drive's path counts as a plain directory.
func mountPoint(string) bool { return false }
