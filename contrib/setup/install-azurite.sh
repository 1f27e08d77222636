#!/bin/sh
# Installs Azurite, the emulator of Azure Blob Storage that the tests use, into a directory of its own.
# Does nothing the second time.  Takes npm as it is on this machine, and Debian's where there is none.
#
#   install-azurite.sh DIRECTORY
set -eu

version=3.35.0 # the last one that runs on Node.js below 22
directory=$1

[ ! -x "$directory/node_modules/.bin/azurite-blob" ] || exit 0
command -v npm >/dev/null 2>&1 || "$(dirname "$0")/install-packages.sh" nodejs npm
mkdir -p "$directory"
npm install --prefix "$directory" --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error \
    "azurite@$version"
