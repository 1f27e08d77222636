#!/bin/sh
# Installs the Debian or Ubuntu packages that are missing, and nothing else.
# Says what it does, asks sudo only when something is missing, and does nothing the second time.
#
#   install-packages.sh PACKAGE...
set -eu

installed() {
    dpkg-query --show --showformat='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

missing=
for package in "$@"; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "These packages are needed and this is not Debian or Ubuntu; install their like by hand:$missing" >&2
    exit 1
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "These packages are missing and there is no sudo; as root run: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "Installing$missing"
# Lists that were never fetched make every package look unknown: fetch them only then.
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing || {
    $as_root apt-get update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}
