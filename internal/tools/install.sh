#!/bin/sh
# install.sh PROGRAM...
#
# Makes sure that each program is there, by installing the Debian package that
# carries it where it is missing. Needs root or sudo only for what is missing.
set -eu

package_of() {
	case $1 in
	promtool) echo prometheus ;;
	systemd-analyze) echo systemd ;;
	gcc) echo gcc libc6-dev ;;
	npm) echo nodejs npm ;;
	ip) echo iproute2 ;;
	mkfs.ext4) echo e2fsprogs ;;
	umount) echo mount ;;
	*) echo "$1" ;;
	esac
}

missing=
packages=
for program in "$@"; do
	command -v "$program" >/dev/null 2>&1 && continue
	missing="$missing $program"
	packages="$packages $(package_of "$program")"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "install.sh: missing:$missing; there is no apt-get here, install them by hand" >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	sudo=
elif command -v sudo >/dev/null 2>&1; then
	sudo=sudo
else
	echo "install.sh: missing:$missing; run as root or with sudo, or: apt-get install$packages" >&2
	exit 1
fi

# Debian starts a service when it is installed; 101 says that it must not.
# An answer that is there already is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '$sudo rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
	$sudo chmod +x $policy
fi

echo "installing:$packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # both are lists
if ! { $sudo apt-get update -qq && $sudo apt-get install -qq -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
	sed -n '/^[EW]:/p' "$log" >&2
	echo "install.sh: could not install:$packages" >&2
	rm -f "$log"
	exit 1
fi
rm -f "$log"

for program in $missing; do
	command -v "$program" >/dev/null 2>&1 || {
		echo "install.sh: $program is still missing after installing its package" >&2
		exit 1
	}
done
