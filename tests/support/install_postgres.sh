#!/bin/sh
# Installs PostgreSQL where this user may; says what to do otherwise. The tests start their own server.
set -eu
if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null; then
  exit 0
fi
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "Installing PostgreSQL ..."
  timeout 120 apt-get update -qq && timeout 600 apt-get install -y -qq postgresql >/dev/null && exit 0
fi
echo "PostgreSQL is not installed, and cannot be installed from here: apt-get install postgresql." >&2
exit 1
