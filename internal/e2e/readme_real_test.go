//go:build real && linux

//real:needs curl ip bash

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadme runs every command of the README as it is written, in a copy of
// the tree and in a network namespace of its own, where the default ports are
// free and the addresses of the two machines exist. A block of commands that
// this test doesn't know fails it.
func TestReadme(t *testing.T) {
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	tree := copyTree(t, strings.TrimSpace(string(root)))
	blocks := readmeBlocks(t, filepath.Join(tree, "README.md"))
	take := func(heading string, n int) []string {
		t.Helper()
		got := blocks[heading]
		delete(blocks, heading)
		if len(got) != n {
			t.Fatalf("README: %d blocks of commands below %q, the test knows %d", len(got), heading, n)
		}
		return got
	}
	first, install, alone := take("Gridloom", 2), take("Install", 1), take("One node", 1)
	two, using, users := take("Two machines", 5), take("Using it", 2), take("Users and keys", 1)
	watching := strings.TrimSpace(take("Watching it", 1)[0])
	for heading := range blocks {
		t.Errorf("README: nothing runs the commands below %q", heading)
	}
	start, rest, _ := strings.Cut(first[0], "\n")
	if strings.TrimSpace(rest) == "" || !strings.HasPrefix(rest, "make test") {
		t.Fatalf("README: the first block is the two commands, got %q", first[0])
	}
	// make test is what runs in every CI: it isn't run inside of itself.
	out := filepath.Join(t.TempDir(), "bin")
	script := strings.Join([]string{
		prologue,
		"cd " + tree,
		"background dev " + start,
		"await dev 'Root key'",
		"key=$(sed -n 's/.*Root key *//p' dev.log)",
		`key=${key%% *}`,
		strings.ReplaceAll(first[1], "gl_root_…", "$key"),
		`[ "$(./gridloom --endpoint 127.0.0.1:7410 get photos/readme.md - | sha256sum)" = "$(sha256sum < README.md)" ]`,
		using[0],
		"cmp README.md out/moved.md && test ! -e out/copy.md && diff -r docs docs.before",
		using[1],
		"awhile " + strings.ReplaceAll(watching, "\n", "\nawhile "),
		users[0],
		"! ./gridloom --key-file ann.key ls photos",
		"stop dev",
		"export GOBIN=" + out + " PATH=" + out + ":$PATH",
		install[0],
		"unset GRIDLOOM_KEY",
		"background alone " + alone[0],
		"await alone ready",
		"./gridloom --key-file gridloom-data/credentials mb alone",
		"stop alone",
		two[0],
		"background a " + two[1],
		"background b " + two[2],
		"await a ready", "await b ready",
		two[3] + " | cmp - README.md",
		"{", two[4], "} | grep 'led by a'",
		"stop a", "stop b",
		"echo all of it ran",
	}, "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-s")
	cmd.Stdin = strings.NewReader(script)
	// Static, as the checks have built it already.
	cmd.Env = append(cleanEnv(), "CGO_ENABLED=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil || !strings.Contains(output.String(), "all of it ran") {
		t.Fatalf("%v\n%s", err, output.String())
	}
}

// prologue makes the namespace, and says how a block that doesn't end is run:
// in a process group of its own, which a Ctrl-C reaches as a whole.
const prologue = `set -euo pipefail -m
ip link set lo up
ip addr add 10.0.0.1/32 dev lo
ip addr add 10.0.0.2/32 dev lo
declare -A group
trap 'code=$?; for g in "${group[@]}"; do kill -KILL -- -"$g" 2>/dev/null || true; done; [ $code = 0 ] || tail -n 20 ./*.log; exit $code' EXIT
background() { local name=$1; shift; "$@" >"$name.log" 2>&1 & group[$name]=$!; }
await() {
	for ((i = 0; i < 1200; i++)); do
		grep -q -- "$2" "$1.log" && return
		kill -0 -- -"${group[$1]}" 2>/dev/null || { echo "$1 ended"; return 1; }
		read -rt 0.1 <> <(:) || :
	done
	echo "$1 says nothing of $2"; return 1
}
awhile() { # what shows something until it is told to stop, and what judges the machine
	local code=0
	timeout 3 "$@" >awhile.log || code=$?
	case $code in 0 | 4 | 5 | 124) ;; *) echo "$*: exit code $code"; return 1 ;; esac
	[ -s awhile.log ] || [ "$2" = trace ] || { echo "$*: it says nothing"; return 1; }
}
stop() { kill -INT -- -"${group[$1]}"; wait "${group[$1]}" || :; unset "group[$1]"; }`

// copyTree copies what git knows of the tree, changes included.
func copyTree(t *testing.T, root string) string {
	t.Helper()
	tree := t.TempDir()
	copying := fmt.Sprintf("git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t %q && cp -r docs %q/docs.before", tree, tree)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", copying)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copying the tree: %v\n%s", err, out)
	}
	return tree
}

var fence = regexp.MustCompile("(?ms)^#+ ([^\n]+)$|^```sh\n(.*?)^```$")

// readmeBlocks returns the blocks of commands by the heading they stand below.
func readmeBlocks(t *testing.T, file string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks, heading := map[string][]string{}, ""
	for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
		if m[1] != "" {
			heading = m[1]
			continue
		}
		blocks[heading] = append(blocks[heading], strings.TrimSpace(m[2]))
	}
	return blocks
}
