//go:build soak

package e2e

import "testing"

// TestSoakKills kills a mesh twenty times under load.
func TestSoakKills(t *testing.T) { killUnderLoad(t, 20) }
