#!/bin/sh
# Undo install.sh, with the same PREFIX and DESTDIR. The history and the configuration stay.
set -eu

prefix=${PREFIX:-/opt/ntpaudit} bindir=${BINDIR:-/usr/local/bin} destdir=${DESTDIR:-}
mandir=${MANDIR:-/usr/local/share/man}

if [ -z "$destdir" ] && dpkg-query --show --showformat='${Status}' ntpaudit 2>/dev/null | grep -q 'ok installed'; then
    echo "ntpaudit is installed from its Debian package: apt-get remove ntpaudit" >&2
    exit 1
fi
if [ ! -e "$destdir$prefix/bin/ntpaudit" ]; then
    echo "ntpaudit is not installed in $destdir$prefix"
    exit 0
fi
if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now ntpaudit.service ntpaudit-check.timer ntpaudit-anchor.timer || true
    systemctl --quiet stop ntpaudit-check.service ntpaudit-anchor.service || true
    for socket in /usr/lib/systemd/system/ntpaudit-*.socket; do
        name=$(basename "$socket" .socket)
        systemctl --quiet stop "$name.socket" "$name.service" || true
        rm -f "/etc/systemd/system/sockets.target.wants/$name.socket"
    done
fi
rm -rf "$destdir$prefix" "$destdir"/usr/lib/systemd/system/ntpaudit.service* \
    "$destdir"/usr/lib/systemd/system/ntpaudit-*
rm -f "$destdir$bindir/ntpaudit" "$destdir$mandir"/man1/ntpaudit.1 "$destdir$mandir"/man1/ntpaudit-*.1
if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload
fi
echo "ntpaudit is removed; the history in /var/lib/ntpaudit and the configuration in /etc/ntpaudit are kept"
