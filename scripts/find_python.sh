#!/bin/sh
# Print the path of a Python of 3.11 or later that can make virtual environments.
# $1: the one the user asked for (make PYTHON=…), or empty. Says how to mend it if there is none.

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

candidates="${1:-python3.11 python3.12 python3.13 python3.14 python3}"
for attempt in first second; do
    for candidate in $candidates; do
        if usable "$candidate"; then
            command -v "$candidate"
            exit 0
        fi
    done
    # On Debian a Python without python3-venv, or none at all, can be completed by apt.
    if [ "$attempt" = first ] && [ -z "${1:-}" ]; then
        "$(dirname "$0")/install_system.sh" python >&2 || break
    else
        break
    fi
done

for candidate in $candidates; do
    if recent "$candidate"; then
        echo "$candidate cannot make virtual environments: its module venv or ensurepip is missing." >&2
        echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
done
for candidate in $candidates; do
    if found=$("$candidate" --version 2>/dev/null); then
        echo "$candidate is $found, but Python 3.11 or later is needed." >&2
        echo "Install one, or name one: make PYTHON=/path/to/python3.11 …" >&2
        exit 1
    fi
done
echo "No Python found (looked for: $candidates). Python 3.11 or later is needed." >&2
echo "Install one, or name one: make PYTHON=/path/to/python3.11 …" >&2
exit 1
