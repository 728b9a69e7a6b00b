#!/usr/bin/env bash
# Install by apt what is missing of the system's programs, and nothing else.
#
#   install_system.sh python    Python 3.11 or later with venv   (make run needs it)
#   install_system.sh tests     what the tests drive: Redis, ZooKeeper, PostgreSQL, MariaDB,
#                               Chromium with its driver, a Chinese font, Node.js, libfaketime
#
# Nothing that is installed here is left running: the tests start servers of their own.
set -euo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
has_package() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
has_python() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || has initdb; }
has_zookeeper() { [ -e /usr/share/java/zookeeper.jar ] && has java; }
has_chinese_font() { has_package fonts-noto-cjk || { has fc-list && [ -n "$(fc-list :lang=zh)" ]; }; }
has_node() { has node && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; }
has_faketime() { compgen -G '/usr/lib*/faketime/libfaketime.so.1' >/dev/null || compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null; }

missing=()
need() { missing+=("$@"); }

case "${1:-}" in
python)
    has_python || need python3 python3-venv
    ;;
tests)
    has redis-server || need redis-server
    has_zookeeper || need zookeeper
    has_postgres || need postgresql
    { has mariadbd && has mariadb-install-db; } || need mariadb-server
    has chromium || need chromium
    has chromedriver || need chromium-driver
    has_chinese_font || need fonts-noto-cjk
    has_node || need nodejs
    has npm || need npm
    has_faketime || need libfaketime
    ;;
*)
    usage
    ;;
esac

if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
echo "Missing on this system: ${missing[*]}"

if ! has apt-get; then
    echo "This is not a Debian or Ubuntu system: please install these by its own means." >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! has sudo; then
        echo "Neither root nor sudo: please run as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Debian's packages start their services when installed. policy-rc.d is the documented way to say
# no (invoke-rc.d(8)); where an administrator has one already, it is his to decide.
policy=/usr/sbin/policy-rc.d
made_policy=no
remove_policy() {
    if [ "$made_policy" = yes ]; then
        "${as_root[@]}" rm -f "$policy"
    fi
}
trap remove_policy EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}
apt update
apt install --no-install-recommends "${missing[@]}"

# Nor shall they start with the next boot.
if [ -d /run/systemd/system ]; then
    for package in "${missing[@]}"; do
        case "$package" in
        redis-server | postgresql) "${as_root[@]}" systemctl disable "$package" ;;
        mariadb-server) "${as_root[@]}" systemctl disable mariadb ;;
        esac
    done
fi
