#!/usr/bin/env bash
# One machine, one process: ./launch/local.sh train|sample|evaluate|vary|compare|edit|convert|benchmark|test [flags]
#
# On first use it makes the virtual environment .venv from requirements.txt (again only if that file changes).
# GENJAX_PYTHON=/path/to/python uses an environment of your own instead.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
verbs="train sample evaluate vary compare edit convert benchmark test"
verb=${1:-}
if [[ " $verbs " != *" $verb "* || -z $verb ]]; then
  echo "error: './launch/local.sh ${verb}' is unknown: say one of: $verbs" >&2
  exit 2
fi
shift

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: genjax needs Python 3.11 or newer" >&2
  exit 2
}

set_up() {
  local wanted stamp="$root/.venv/requirements.installed"
  wanted=$(cat "$root/requirements.txt")
  if [[ -f $stamp && $(cat "$stamp") == "$wanted" ]]; then
    return
  fi
  echo "setting up $root/.venv (once)"
  "$(find_python)" -m venv "$root/.venv"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.txt"
  printf '%s\n' "$wanted" >"$stamp"
}

if [[ -n ${GENJAX_PYTHON:-} ]]; then
  python=$GENJAX_PYTHON
else
  set_up
  python=$root/.venv/bin/python
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

if [[ $verb == test ]]; then
  cd "$root"
  "$python" -m ruff format --check --quiet .
  "$python" -m ruff check --quiet .
  "$python" -m mypy --no-error-summary
  exec "$python" -m pytest -n "${GENJAX_TEST_WORKERS:-2}" --dist loadgroup "$@"
fi

# On CPU: one virtual device per core (a power of two, so that batches divide), and an allocator that keeps its
# memory. Neither matters on GPU and TPU.
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
devices=1
while ((devices * 2 <= cores && devices < 8)); do devices=$((devices * 2)); done
if [[ ${XLA_FLAGS:-} != *xla_force_host_platform_device_count* ]]; then
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
fi
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

exec "$python" -m "experiments.$verb" "$@"
