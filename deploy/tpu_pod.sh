#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice, one process a host. Every host has the project in ~/gan_jax with its .venv
# (`pip install -e '.[tpu]'`), and the same network folder at the place of --workdir. From anywhere:
#
#     deploy/tpu_pod.sh NAME ZONE --config=ffhq_stylegan2 --workdir=/shared/runs/ffhq_stylegan2
#
# A host that is taken away gets SIGTERM, and the run saves on all of them. When the slice is back, the same command goes
# on.
set -euo pipefail

if [ $# -lt 2 ]; then echo "usage: $0 NAME ZONE [flags of train]" >&2; exit 2; fi
name=$1 zone=$2
shift 2

# Quoted once more, because a shell on each host reads the words again.
command='cd gan_jax && exec .venv/bin/python launch.py train'
for word in "$@"; do command+=$(printf ' %q' "$word"); done
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
