#!/usr/bin/env bash
# All studies side by side on a machine with a card and 16 cores: no run starts after MINUTES (7 by default).
#     MINUTES=7 DATA=/usr/share/datasets/fashion-mnist RESULTS=benchmarks/results/studies benchmarks/studies/gpu.sh
cd "$(dirname "$0")/../.."
minutes=${MINUTES:-7} results=${RESULTS:-benchmarks/results/studies} data=${DATA:-/usr/share/datasets/fashion-mnist}
export OMP_NUM_THREADS=1 PYTHONPATH="$PWD:${PYTHONPATH:-}"
study() { python3 "benchmarks/studies/$1.py" --device cuda --minutes "$minutes" --results "$results" "${@:2}" >"$results/$1.log" 2>&1 & }
mkdir -p "$results"
study language --workers 7
study images --workers 4 --data "$data"
study steering --workers 2 --data "$data"
study width_transfer --workers 2
study gan --workers 1 --data "$data"
wait
