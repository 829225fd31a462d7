package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestColdStart starts five new nodes at the same moment, three times;
// make soak does it fifty times.
func TestColdStart(t *testing.T) {
	t.Parallel()
	coldStarts(t, 3)
}

// coldStarts makes one mesh after the other: the nodes of each must come to
// agree on one id, and no two meshes on the same.
func coldStarts(t *testing.T, rounds int) {
	seen := map[string]bool{}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			f := startFleet(t, 5)
			id := f.deployment(t)
			if seen[id] {
				t.Errorf("two meshes have the id %s", id)
			}
			seen[id] = true
		})
	}
}

// deployment is the mesh's id, on which all nodes and their disks agree.
func (f *fleet) deployment(t *testing.T) string {
	t.Helper()
	ids := map[string][]string{}
	for node := range f.all() {
		c, err := f.describe(t.Context(), node)
		if err != nil {
			t.Fatalf("n%d: %v", node, err)
		}
		ids[c.DeploymentID] = append(ids[c.DeploymentID], f.name(node))
		kept, err := os.ReadFile(filepath.Join(f.data(node), "deployment"))
		if err != nil || strings.TrimSpace(string(kept)) != c.DeploymentID {
			t.Errorf("n%d says that the id is %s, and has kept %q (%v)", node, c.DeploymentID, kept, err)
		}
	}
	if len(ids) != 1 || ids[""] != nil {
		t.Fatalf("not one id: %v", ids)
	}
	for id := range ids {
		return id
	}
	return ""
}
