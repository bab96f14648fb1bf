#!/usr/bin/env bash
# Runs one slimjax command on every worker of a TPU slice.
#
#   launch/tpu_pod.sh NAME ZONE -- slimjax train --config configs/imagenet_usnet.py:model=us_mobilenet_v2 --workdir gs://...
#
# Needs gcloud, and this repository installed (`make install`) in ~/slimjax on every worker; set SLIMJAX_DIR for
# another place. JAX finds the other workers by itself (SLIMJAX_COORDINATOR=auto).
set -euo pipefail

usage() { echo "usage: launch/tpu_pod.sh NAME ZONE -- COMMAND ..." >&2; exit 2; }
[[ $# -ge 4 && $3 == -- ]] || usage
name=$1 zone=$2
shift 3

command=$(printf '%q ' "$@")
directory=${SLIMJAX_DIR:-\$HOME/slimjax}
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd $directory && export PATH=\$PWD/.venv/bin:\$PATH SLIMJAX_COORDINATOR=auto && $command"
