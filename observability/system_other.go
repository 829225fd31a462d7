//go:build !linux && !windows

package observability

// blockDevice is known on Linux and Windows; elsewhere the mounts are asked.
func blockDevice(string) string { return "" }
