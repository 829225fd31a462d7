//go:build !linux

package observability

// blockDevice is known on Linux alone; elsewhere the mounts are asked.
func blockDevice(string) string { return "" }
