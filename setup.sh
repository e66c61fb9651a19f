#!/bin/sh
# `make setup`: the virtual environment VENV, by PYTHON, with what requirements-dev.lock names.
# What cannot go well is refused before it costs 6 GB. Usage: setup.sh PYTHON VENV
set -eu
python=$1
venv=$2
oldest=11 # the Pythons 3.x that the lock is made for; README.md and `make lock` say the same
newest=14

refuse() {
  echo "$*" >&2
  exit 1
}

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

fits() {
  case "$1" in
    3.*) test "${1#3.}" -ge $oldest && test "${1#3.}" -le $newest ;;
    *) false ;;
  esac
}

range="Python 3.$oldest to 3.$newest"
again="remove it with 'make clean VENV=$venv' and try again."
version=$(version_of "$python")
has=
if test -x "$venv/bin/python"; then
  has=$(version_of "$venv/bin/python")
  fits "$has" || refuse "VisionLoop needs $range, $venv has ${has:-one that does not run}: $again"
fi
if test -z "$has" || test "$python" != python3; then
  fits "$version" || refuse "VisionLoop needs $range, $python is ${version:-not there}:" \
    "name another one, such as make PYTHON=python3.13 ..."
  test "$version" = "${has:-$version}" || refuse "$venv has Python $has, $python is $version: $again"
fi
if test "$venv/.installed" -nt requirements-dev.lock; then
  test -e "$venv/bin/visionloop" || ln -sf "$(pwd)/bin/visionloop" "$venv/bin/visionloop"
  exit 0
fi

{ mkdir -p "$venv" && test -w "$venv"; } 2>/dev/null || refuse \
  "$venv cannot be written here: name another place, such as make VENV=/var/tmp/visionloop-venv ..."
test -n "$has" || test -f "$venv/pyvenv.cfg" || test -z "$(ls -A "$venv")" || refuse \
  "$venv holds something else: name another place, such as make VENV=/var/tmp/visionloop-venv ..."
if uv=$(command -v uv); then
  test -x "$venv/bin/python" || "$uv" venv --quiet --allow-existing --python "$python" "$venv"
else
  uv=$venv/bin/uv
  test -x "$venv/bin/python" || "$python" -m venv "$venv"
  test -x "$uv" || awk '/^uv==/,/[^\\]$/' requirements-dev.lock |
    "$venv/bin/python" -m pip install --quiet --require-hashes -r /dev/stdin
fi
echo "Installing requirements (about 6 GB the first time, which takes some minutes) ..."
"$uv" pip install --quiet --require-hashes --compile-bytecode --python "$venv/bin/python" \
  -r requirements-dev.lock || refuse "The requirements could not be installed." \
  "uv does not read pip's settings: behind a proxy with a certificate of its own, try again with" \
  "UV_SYSTEM_CERTS=1 (the system's certificates), or SSL_CERT_FILE=/path/to/certificates.crt, exported."
lacks=$("$venv/bin/python" -c 'import cv2' 2>&1 | tail -n 1)
test -z "$lacks" || refuse "OpenCV cannot be loaded ($lacks): install the system's libraries for it," \
  "on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0"
ln -sf "$(pwd)/bin/visionloop" "$venv/bin/visionloop"
touch "$venv/.installed"
