#!/usr/bin/env bash
# Runs while the container image is built. A volume mounted at /data takes its owner from here.
set -eu
mkdir -p /data
chown "${BENTO_USER:-bentoml}:${BENTO_USER:-bentoml}" /data
