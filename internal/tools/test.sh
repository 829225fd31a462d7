#!/bin/sh
# test.sh unit|real|soak|fuzz
#
# The one place that knows how the tests are run. docs/development.md explains
# the build tags. Flags for go test may be given in TESTFLAGS.
set -eu
cd "$(dirname "$0")/../.."
GO=${GO:-go}
TESTFLAGS=${TESTFLAGS:-}

# The race detector needs cgo, a C compiler and its headers.
race=
if [ "$($GO env CGO_ENABLED)" = 1 ] &&
	echo '#include <stdlib.h>' | $($GO env CC) -x c -fsyntax-only - 2>/dev/null; then
	race=-race
else
	echo "no C compiler: the race detector is off"
fi

# tagged TAG prints the test files that carry the build tag TAG.
tagged() {
	find . -name '*_test.go' -not -path '*/node_modules/*' -not -path '*/testdata/*' \
		-exec grep -lE "^//go:build (.*[^a-z!])?$1([^a-z].*)?$" {} + | sort
}

# packages FILE... prints the folders of the files.
packages() {
	for file in "$@"; do dirname "$file"; done | sort -u
}

# nested prints the folders of the modules below this one that have tests.
nested() {
	find . -mindepth 2 -name go.mod -not -path '*/node_modules/*' -not -path '*/testdata/*' | sort |
		while read -r mod; do
			dir=$(dirname "$mod")
			if find "$dir" -name '*_test.go' -not -path '*/node_modules/*' | grep -q .; then echo "$dir"; fi
		done
}

# by_tag TAG TIMEOUT FLAG... runs the tests in the files that carry the tag,
# and no others. That there are none is a failure.
by_tag() {
	tag=$1 timeout=$2
	shift 2
	files=$(tagged "$tag")
	if [ -z "$files" ]; then
		echo "no test carries the build tag $tag" >&2
		exit 1
	fi
	# shellcheck disable=SC2086 # a list of files
	tests=$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(t \*testing\.T).*/\1/p' $files | sort -u | paste -s -d '|' -)
	# shellcheck disable=SC2086
	$GO test $race -tags "$tag" -run "^($tests)\$" -timeout "$timeout" "$@" $TESTFLAGS $(packages $files)
}

# fuzz TIME runs every fuzz target for TIME, one after the other. Their seeds,
# f.Add's and those in testdata/fuzz, run with the other tests.
fuzz() {
	files=$(find . -name '*_test.go' -not -path '*/node_modules/*' -not -path '*/testdata/*' -exec grep -l '^func Fuzz' {} + | sort)
	# shellcheck disable=SC2086
	for dir in $(packages $files); do
		for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go | sort); do
			echo "$dir $target"
			# shellcheck disable=SC2086
			(cd "$dir" && $GO test -run '^$' -fuzz "^$target\$" -fuzztime "$1" $TESTFLAGS .)
		done
	done
}

case ${1:-} in
unit)
	# Nothing from go's cache: internal/e2e runs programs that it builds itself,
	# and go doesn't know that they have changed. The longest come first, so that
	# none of them runs alone at the end, and twice as many at a time as there are
	# processors: half of their time they wait for deadlines and elections.
	# shellcheck disable=SC2086
	$GO test $race -count=1 -p $((2 * $(getconf _NPROCESSORS_ONLN))) -timeout 15m $TESTFLAGS ./node/object ./internal/e2e ./node/control ./...
	# With the race detector the simulation takes a fifth of its steps.
	# shellcheck disable=SC2086
	[ -z "$race" ] || CGO_ENABLED=0 $GO test -timeout 5m -run '^TestSimulation$' $TESTFLAGS ./node/control/replica
	for dir in $(nested); do
		echo "module $dir"
		# Benchmarks beside other stacks, which vet has compiled without cgo: a
		# second time with the race detector is worth minutes, and finds theirs.
		# shellcheck disable=SC2086
		(cd "$dir" && CGO_ENABLED=0 $GO test -timeout 5m $TESTFLAGS ./...)
	done
	;;
real)
	# Each such file says what it needs: //real:needs strace nginx
	files=$(tagged real)
	# shellcheck disable=SC2046,SC2086
	[ -z "$files" ] || internal/tools/install.sh $(sed -n 's|^//real:needs ||p' $files | tr ' ' '\n' | sort -u)
	by_tag real 10m -count=1
	;;
soak)
	by_tag soak 3h -count=1 -v
	fuzz "${FUZZTIME:-1m}"
	;;
fuzz)
	fuzz "${FUZZTIME:-20s}"
	;;
*)
	echo "usage: test.sh unit|real|soak|fuzz" >&2
	exit 2
	;;
esac
