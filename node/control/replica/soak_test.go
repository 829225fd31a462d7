//go:build soak

package replica_test

import "testing"

func TestSimulationLong(t *testing.T) { simulate(t, 100, 100_000) }
