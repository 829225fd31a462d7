#!/bin/sh
# breaking.sh checks that the API stays compatible with what is out there: the
# git ref in BASE, else the last release. Before a first release nothing is.
set -eu
cd "$(dirname "$0")/../.."
base=${BASE:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)}
if [ -z "$base" ]; then
	echo "skipped: there is no release to be compatible with, and no BASE was given"
	exit 0
fi
commit=$(git rev-parse --verify --quiet "$base^{commit}") || {
	echo "breaking.sh: BASE=$base names no commit" >&2
	exit 1
}
echo "comparing with $base"
${BUF:-buf} breaking --against ".git#ref=$commit"
