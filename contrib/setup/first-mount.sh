#!/bin/sh
# Leaves the volume "default" mounted: makes it on first use, over three local buckets coded 2+1.
#
#   first-mount.sh OBJFS DIR       OBJFS is the program, DIR the mount point
#
# Everything is done only where it is missing, so it can be run any number of times.
set -eu
objfs=$1
dir=$2
name=${VOLUME:-default}

if [ "$(id -u)" -eq 0 ]; then
    place=${OBJFS_BUCKETS:-/var/lib/objfs-buckets}
    home=${OBJFS_HOME:-/var/lib/objfs}
    keys=${OBJFS_SECRETS:-/etc/objfs}
else
    place=${OBJFS_BUCKETS:-${XDG_DATA_HOME:-$HOME/.local/share}/objfs/buckets}
    home=${OBJFS_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/objfs}
    keys=${OBJFS_SECRETS:-${XDG_CONFIG_HOME:-$HOME/.config}/objfs}
fi
passphrase=$keys/$name.passphrase

make_passphrase() {
    mkdir -p "$keys"
    chmod 700 "$keys"
    (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '\n' >"$passphrase.new")
    mv "$passphrase.new" "$passphrase"
    echo "A passphrase was generated: $passphrase"
    echo "Keep a copy of it elsewhere: without it nobody can read the volume again."
}

make_volume() {
    [ -f "$passphrase" ] || make_passphrase
    for bucket in a b c; do mkdir -p "$place/$bucket"; done
    # The recovery key is printed once, here.
    "$objfs" mkfs "$name" --code 2+1 --passphrase-file "$passphrase" \
        --bucket "file://$place/a" --bucket "file://$place/b" --bucket "file://$place/c"
}

export OBJFS_HOME="$home"
[ -f "$home/$name/volume.toml" ] || make_volume

if grep -q " $(printf '%s' "$dir" | sed 's/ /\\\\040/g') fuse.objfs " /proc/mounts; then
    echo "Volume $name is mounted at $dir already."
else
    options=
    [ "$(id -u)" -ne 0 ] || options="-o allow_other,dev,suid"
    # shellcheck disable=SC2086
    "$objfs" mount "$name" "$dir" --make-dir --passphrase-file "$passphrase" $options
    echo "Volume $name is mounted at $dir."
fi
echo "  look at it:  $objfs status $dir"
echo "  stop it:     make umount    (or: $objfs umount $dir)"
