#!/usr/bin/env bash
# Starts N jax.distributed processes of one command on this machine.
#
#   launch/local.sh N -- slimjax train --config configs/digits_usnet.py --workdir runs/two
#
# Each process gets its rank in SLIMJAX_PROCESS_ID and a prefix "[rank] " on its output. If one fails, the
# others are stopped and its exit code is returned. SLIMJAX_TIMEOUT: seconds to wait for all to join (300).
set -euo pipefail

usage() { echo "usage: launch/local.sh N -- COMMAND ..." >&2; exit 2; }
[[ $# -ge 3 && $1 =~ ^[1-9][0-9]*$ && $2 == -- ]] || usage
processes=$1
shift 2

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export SLIMJAX_COORDINATOR=localhost:$port SLIMJAX_PROCESSES=$processes

pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; }
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM

for ((rank = 0; rank < processes; rank++)); do
  # Only rank 0 prints results on stdout; the prefixes go to stderr with the progress.
  SLIMJAX_PROCESS_ID=$rank "$@" 2> >(sed -u "s/^/[$rank] /" >&2) &
  pids+=($!)
done

status=0
for ((left = processes; left > 0; left--)); do
  wait -n || status=$?
  if ((status != 0)); then
    stop
    wait || true
    break
  fi
done
exit "$status"
