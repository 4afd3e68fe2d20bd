#!/usr/bin/env bash
# SkyPilot, on any cloud: ./launch/skypilot.sh --gpus=H100:8 --bucket=s3://NAME [options] VERB [flags]
#
# Writes a task and launches it as a managed job; --dry_run prints it. SkyPilot replaces lost machines; failed processes
# are restarted on their machines; both resume from the bucket. A user error (exit code 2) ends the job.
#
#   ./launch/skypilot.sh --gpus=H100:8 --nodes=2 --spot --bucket=s3://mine train --config=gan_digits

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

option name text genjax "name of the job"
option gpus text "" "type and number of GPUs per node, like H100:8"
option tpu text "" "TPU slice, like tpu-v5litepod-16 or tpu-v6e-8"
option version text "" "TPU runtime version; default that of SkyPilot"
option nodes size 1 "number of nodes"
option cpus text "" "CPU cores per node, like 8 or 8+"
option memory text "" "memory per node in GB, like 64 or 64+"
option infra text "" "cloud or region, like gcp/us-central1, aws, kubernetes; default the cheapest"
option spot flag "" "spot machines, which may be preempted"
option bucket text "" "bucket mounted as runs/, like s3://NAME or gs://NAME"
option port size 8476 "port of the coordinator"
option retries count 3 "restarts of failed processes on their machines"
option pause seconds 30 "seconds before a restart"
option dry_run flag "" "print the task and launch nothing"
parse "$@"
[[ $opt_name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || fail "--name=$opt_name: at most 40 lower-case letters, digits and dashes"
[[ $verb != suite ]] || fail "a suite runs on one machine: local.sh"
[[ $verb != sweep ]] || fail "a sweep runs on one machine (local.sh) or as an array (slurm.sh)"
[[ -z $opt_gpus || -z $opt_tpu ]] || fail "--gpus and --tpu exclude each other"
[[ -z $opt_gpus || $opt_gpus =~ ^[A-Za-z0-9-]+:[1-9][0-9]*$ ]] || fail "--gpus=$opt_gpus: write type and number, like H100:8"
[[ -z $opt_tpu || $opt_tpu == tpu-* ]] || fail "--tpu=$opt_tpu: write --tpu=tpu-${opt_tpu#tpu}"
[[ -z $opt_tpu || $opt_nodes == 1 ]] || fail "--nodes is for GPUs: the TPU type determines its hosts"
[[ $opt_bucket =~ ^([a-z0-9]+://[^[:space:]]+)?$ ]] || fail "--bucket=$opt_bucket: write s3://NAME or gs://NAME"
[[ -n $opt_bucket ]] || fail "no storage for runs/ given: --bucket=s3://NAME (the disk of a machine is lost with it)"
accelerator=cpu
[[ -z $opt_gpus ]] || accelerator=cuda13
[[ -z $opt_tpu ]] || accelerator=tpu

program() { # the command of each node; TPU hosts read their coordinator from the environment
  local line
  line="$(quote ./launch/local.sh "--retries=$opt_retries" "--pause=$opt_pause" "$verb" ${words[@]+"${words[@]}"})"
  ((opt_nodes == 1)) ||
    line+=" \"--coordinator=\$(head -n 1 <<<\"\$SKYPILOT_NODE_IPS\"):$opt_port\" --num_processes=$opt_nodes \"--process_id=\$SKYPILOT_NODE_RANK\""
  echo "$line"
}

task() {
  cat <<END
name: $opt_name
workdir: $(json "$root")
num_nodes: $opt_nodes
resources:
$([[ -z $opt_gpus ]] || echo "  accelerators: $(json "$opt_gpus")")
$([[ -z $opt_tpu ]] || echo "  accelerators: $(json "$opt_tpu")")
$([[ -z $opt_version ]] || printf '  accelerator_args:\n    runtime_version: %s\n' "$(json "$opt_version")")
$([[ -z $opt_cpus ]] || echo "  cpus: $(json "$opt_cpus")")
$([[ -z $opt_memory ]] || echo "  memory: $(json "$opt_memory")")
$([[ -z $opt_infra ]] || echo "  infra: $(json "$opt_infra")")
  use_spot: $([[ -n $opt_spot ]] && echo true || echo false)
  job_recovery:
    max_restarts_on_errors: 0  # local.sh restarts failed processes, but not after user errors
file_mounts:
  ~/genjax-runs:
    source: $(json "$opt_bucket")
    mode: MOUNT
setup: |
  ln -sfn ~/genjax-runs runs
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv
  export PATH="\$HOME/.local/bin:\$PATH"
  uv python install --quiet 3.12
  PATH="\$(dirname "\$(uv python find 3.12)"):\$PATH" ./launch/local.sh --accelerator=$accelerator setup
run: |
  $(program)
END
}

if [[ -n $opt_dry_run ]]; then
  task | sed '/^$/d'
  exit
fi
need sky "pip install skypilot"
file=$(mktemp "${TMPDIR:-/tmp}/genjax-XXXXXX")
mv "$file" "$file.yaml"
trap 'rm -f "$file.yaml"' EXIT
task | sed '/^$/d' >"$file.yaml"
sky jobs launch --name "$opt_name" --yes "$file.yaml"
