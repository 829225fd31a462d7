//go:build soak

package e2e

import "testing"

// TestSoakKills kills a mesh twenty times under load.
func TestSoakKills(t *testing.T) { killUnderLoad(t, 20) }

// TestSoakKillAny kills single nodes of five during 5,000 puts.
func TestSoakKillAny(t *testing.T) { killAny(t, 5, 5000) }
