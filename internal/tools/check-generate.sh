#!/bin/sh
# check-generate.sh fails when `make generate` would change a file, add one, or
# leave one behind whose source is gone. It works on a copy of the tree, so that
# uncommitted changes are looked at and nothing here is touched.
set -eu
cd "$(dirname "$0")/../.."
buf=$PWD/${BUF:?is set by the Makefile}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/tree"

# What git tracks or would track, and is there.
git ls-files -co --exclude-standard | sort -u | while IFS= read -r file; do
	if [ -f "$file" ]; then echo "$file"; fi
done >"$tmp/files"
tar -cf - -T "$tmp/files" | tar -xf - -C "$tmp/tree"

# snapshot prints the hash and the name of every file of the copy.
snapshot() {
	(cd "$tmp/tree" && find . -type f | sed 's|^\./||' | sort >"$tmp/names" &&
		git hash-object --no-filters --stdin-paths <"$tmp/names" | paste - "$tmp/names")
}

# generated prints the Go files of the copy that say they were generated.
generated() {
	find "$tmp/tree/$1" -name '*.go' -exec grep -l '^// Code generated .* DO NOT EDIT\.$' {} +
}

snapshot >"$tmp/before"
# buf leaves alone what it would not change, so what lies in gen goes first. go
# generate needs the old files to build, and writes all of its own anew: those
# that are not newer than this moment have lost their source.
generated gen | xargs rm -f
rm -f "$tmp"/tree/gen/*.swagger.json
touch "$tmp/started"
(cd "$tmp/tree" && ${MAKE:-make} --no-print-directory generate BUF="$buf")
generated . | while IFS= read -r file; do
	[ "$file" -nt "$tmp/started" ] || rm "$file"
done
snapshot >"$tmp/after"

if ! diff "$tmp/before" "$tmp/after" >"$tmp/diff"; then
	echo "what is generated is not what is there; run make generate, remove what has no source any more, and commit:" >&2
	sed -n 's/^[<>] [0-9a-f]*	/  /p' "$tmp/diff" | sort -u >&2
	exit 1
fi
