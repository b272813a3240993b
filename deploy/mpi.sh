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

# Of a SIGTERM mpirun tells its processes late, see below. SIGUSR1 it passes on at once, and the run heeds it.
launcher='' is_signalled='' is_passed_on=''
pass_on() {  # the first one alone: a second SIGUSR1 would end the run at once
  is_signalled=yes
  if [ -n "$launcher" ] && [ -z "$is_passed_on" ]; then is_passed_on=yes; kill -USR1 "$launcher"; fi
}
trap pass_on TERM INT HUP

# A process is not bound to one core: XLA uses several. Once one has ended with a code, mpirun sends the others SIGTERM
# after the timeout, in seconds, and SIGKILL after it once more. All save together, and end within a second of each other.
set -m  # Ctrl-C comes here, and not to mpirun
mpirun --bind-to none --mca odls_base_sigkill_timeout 5 "${options[@]}" \
  "${PYTHON:-.venv/bin/python}" launch.py train "$@" &
launcher=$!
if [ -n "$is_signalled" ]; then pass_on; fi

ended=0 is_signalled=yes
while [ -n "$is_signalled" ]; do  # a signal ends `wait` early
  is_signalled='' code=0
  wait "$launcher" || code=$?
  if [ "$code" != 127 ]; then ended=$code; fi  # 127: its code was known already
done
exit "$ended"
