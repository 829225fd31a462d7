#!/bin/sh
# check-generate.sh fails when `make generate` changes a file, adds one, or
# leaves one behind whose source is gone. It compares contents, so that it
# works on a tree with uncommitted changes too.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# snapshot prints the hash and name of every file git tracks or would track.
snapshot() {
	git ls-files -co --exclude-standard | sort -u | while IFS= read -r file; do
		if [ -f "$file" ]; then echo "$file"; fi
	done >"$tmp/names"
	git hash-object --no-filters --stdin-paths <"$tmp/names" | paste - "$tmp/names"
}

snapshot >"$tmp/before"
touch "$tmp/started"
${MAKE:-make} --no-print-directory generate
snapshot >"$tmp/after"

failed=0
if ! diff "$tmp/before" "$tmp/after" >"$tmp/diff"; then
	echo "make generate changes these files; run it and commit the result:" >&2
	sed -n 's/^[<>] [0-9a-f]*\t/  /p' "$tmp/diff" | sort -u >&2
	failed=1
fi

# What says that it was generated and was not written just now has no source.
stale=$(git ls-files -co --exclude-standard '*.go' | while IFS= read -r file; do
	if [ -f "$file" ] && [ ! "$file" -nt "$tmp/started" ] &&
		grep -q '^// Code generated .* DO NOT EDIT\.$' "$file"; then echo "  $file"; fi
done)
if [ -n "$stale" ]; then
	echo "these files say that they are generated, and make generate did not write them:" >&2
	echo "$stale" >&2
	failed=1
fi
exit $failed
