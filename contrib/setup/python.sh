#!/bin/sh
# Prints the Python that objfs can use: 3.11 or newer, with venv; the system's first.
set -eu
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
echo "objfs needs Python 3.11 or newer with venv; none was found (PYTHON=/path/to/python names one)" >&2
exit 1
