#!/bin/sh
# Install from a checkout, for all users of this host: `make install [PREFIX=/opt/ntpaudit] [DESTDIR=]`. A second run replaces
# the first installation. It starts nothing.
set -eu
umask 022 # the service's user must be able to read it
export PYTHONDONTWRITEBYTECODE=1 # byte code written now would contain $DESTDIR; compileall writes it below
cd "$(dirname "$0")/.."

python=${PYTHON:-python3} prefix=${PREFIX:-/opt/ntpaudit} bindir=${BINDIR:-/usr/local/bin} destdir=${DESTDIR:-}
mandir=${MANDIR:-/usr/local/share/man}
units=$destdir/usr/lib/systemd/system
target=$destdir$prefix

if [ -z "$destdir" ] && dpkg-query --show --showformat='${Status}' ntpaudit 2>/dev/null | grep -q 'ok installed'; then
    echo "ntpaudit is installed from its Debian package: apt-get remove ntpaudit first" >&2
    exit 1
fi
# The services cannot read home folders, where version managers install Python.
serves() {
    "$1" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11) or sys.base_prefix.startswith(("/home", "/root")))' \
        2>/dev/null
}
serves "$python" || python=/usr/bin/python3
serves "$python" || {
    echo "ntpaudit needs Python 3.11 or newer outside of home folders, with its venv module (Debian: python3-venv):" \
        "make install PYTHON=..." >&2
    exit 1
}

# pip builds in the source folder, and would also install modules of an earlier build.
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
cp -R ntpaudit pyproject.toml README.md LICENSE "$sources"

"$python" -m venv "$target"
# Root runs only reviewed files: each has a hash in the lock. pip would download build requirements without a hash, so
# setuptools is installed first and builds are not isolated.
sed -n '/^setuptools==/,/[^\\]$/p' packaging/requirements.txt >"$sources/build-requirements.txt"
"$target/bin/python3" -m pip install --quiet --no-compile --require-hashes --requirement "$sources/build-requirements.txt"
"$target/bin/python3" -m pip install --quiet --no-compile --require-hashes --no-build-isolation \
    --requirement packaging/requirements.txt
"$target/bin/python3" -m pip install --quiet --no-compile --no-index --no-build-isolation --no-deps "$sources"
"$target/bin/python3" -m pip check >/dev/null || { # the lock does not satisfy pyproject.toml
    "$target/bin/python3" -m pip check >&2
    exit 1
}
"$target/bin/python3" packaging/man.py "$destdir$mandir/man1"
"$target/bin/python3" -m pip --quiet uninstall --yes setuptools pip # no longer needed
"$target/bin/python3" -m compileall -q -s "$destdir" "$target/lib" # the folder may be read-only at run time
find "$target/lib" -name direct_url.json -exec rm {} + # it contains $sources
packages=$("$target/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
launcher() { # without site, environment and the user's packages: nothing else can be imported, and it starts faster
    echo "#!$prefix/bin/python3 -IS"
    sed "s|/opt/ntpaudit/lib|$packages|" "$1"
}
launcher packaging/launcher.py >"$target/bin/ntpaudit"
for helper in systemd/helpers/*.py; do
    launcher "$helper" >"$target/bin/ntpaudit-$(basename "$helper" .py)"
done
chmod 755 "$target"/bin/ntpaudit*
if [ -n "$destdir" ]; then # it will run in another place
    find "$target/bin" "$target/pyvenv.cfg" -type f -exec sed -i "s|$target|$prefix|g" {} +
fi

documents=$target/share/doc/ntpaudit
rm -rf "$documents" # removes pages of an earlier version
install -d "$documents/systemd"
cp -R README.md CHANGELOG.md LICENSE docs grafana "$documents"
cp systemd/README.md "$documents/systemd"
find "$documents" -name __pycache__ -exec rm -r {} +
install -d "$destdir/etc/ntpaudit" "$destdir$bindir" "$units"
ln -sfn "$prefix/bin/ntpaudit" "$destdir$bindir/ntpaudit"
cp -R --no-dereference systemd/ntpaudit* "$units"
# Debian's chronyd has a user of its own name; where neither user exists yet, the other name is the more frequent one.
if ! getent passwd _chrony >/dev/null && { getent passwd chrony >/dev/null || [ ! -e /etc/debian_version ]; }; then
    sed -i "s|^User=_chrony|User=chrony|" "$units/ntpaudit-chrony.service"
fi
sed -i "s|/opt/ntpaudit/|$prefix/|" "$units"/ntpaudit*.service "$units"/ntpaudit*.timer "$units"/ntpaudit*.socket

[ -n "$destdir" ] || [ ! -d /run/systemd/system ] || systemctl --system daemon-reload
cat <<NEXT
ntpaudit is installed in $prefix; nothing was started. Next, as root:
  ntpaudit config init SERVER... --output /etc/ntpaudit/ntpaudit.toml
  systemctl enable --now ntpaudit          (if the service already runs: systemctl restart ntpaudit)
NEXT
