#!/bin/sh
# Writes new random secrets for compose.yaml: deploy/.env, and the token for Prometheus in
# deploy/secrets. Never replaces one, since the database and the bucket were made with it.
set -eu
cd "$(dirname "$0")"
command -v openssl >/dev/null || { echo "openssl is missing." >&2; exit 1; }
if [ -e .env ]; then
  echo "$PWD/.env exists: remove it yourself, if nothing was stored with it." >&2
  exit 1
fi
umask 077
token=$(openssl rand -hex 24)
mkdir -p secrets
echo "$token" >secrets/visionloop_token
chmod 644 secrets/visionloop_token # for Prometheus' user; nobody else gets into the folder
{
  echo "VISIONLOOP_TOKEN=$token"
  for name in VISIONLOOP_ADMIN_TOKEN POSTGRES_PASSWORD GRAFANA_PASSWORD; do
    echo "$name=$(openssl rand -hex 24)"
  done
  echo "GARAGE_RPC_SECRET=$(openssl rand -hex 32)"
  echo "S3_ACCESS_KEY=GK$(openssl rand -hex 12)"
  echo "S3_SECRET_KEY=$(openssl rand -hex 32)"
} >.env
echo "Wrote $PWD/.env. Keep a copy: what is stored cannot be read without it."
