#!/usr/bin/env bash
# One run of several processes under Open MPI 4, one process for each GPU. From the project's folder, which all hosts see:
#
#     deploy/mpi.sh -n 16 --hostfile hosts -- --config=ffhq_stylegan2 --workdir=/shared/runs/ffhq_stylegan2
#
# Options of mpirun stand before --, flags of `train` behind it. The exit code is that of the run: 75 where a signal to
# this script stopped it, saved; the same command then goes on.
set -euo pipefail

options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
if [ $# = 0 ]; then echo "usage: $0 [options of mpirun] -- [flags of train]" >&2; exit 2; fi
shift

# A process is not bound to one core: XLA uses several. The timeout is what the others have, in seconds, once one has
# ended; with mpirun's own of 1 s they could be killed while they save.
set -m  # Ctrl-C comes here, and not to mpirun
mpirun --bind-to none --mca odls_base_sigkill_timeout 60 "${options[@]}" \
  "${PYTHON:-.venv/bin/python}" launch.py train "$@" &
launcher=$!

# Of a SIGTERM mpirun tells the processes only after that timeout. SIGUSR1 it passes on at once, and the run heeds it.
is_signalled=
trap 'is_signalled=yes; kill -USR1 "$launcher"' TERM INT HUP
code=0
wait "$launcher" || code=$?
while [ -n "$is_signalled" ]; do  # a signal ends `wait` early
  is_signalled= code=0
  wait "$launcher" || code=$?
done
exit "$code"
