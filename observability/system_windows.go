package observability

import "path/filepath"

// blockDevice returns the volume ("C:"), by which Windows counts.
func blockDevice(path string) string { return filepath.VolumeName(path) }
