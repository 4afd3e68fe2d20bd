#!/usr/bin/env bash
# SLURM: ./launch/slurm.sh [options] VERB [flags]
#
# Writes a batch script and submits it; --dry_run prints it. One process per GPU, detected by SLURM's variables. A
# failed run is restarted within its allocation and resumes; after a lost node, a preemption or the time limit the job
# is requeued and resumes: --grace seconds before the limit all processes save. A user error (exit code 2) ends the
# job. The verb sweep becomes a job array with one task per run, and a summary job after the last.
#
#   ./launch/slurm.sh --nodes=4 --gpus=8 --time=12:00:00 train --config=gan_digits --workdir=/shared/gan

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

option nodes size 1 "number of nodes"
option gpus count 0 "GPUs per node"
option processes count 0 "processes per node; default one per GPU, or one"
option cpus count 0 "CPU cores per process; default that of the cluster"
option memory text "" "memory per node, like 64G"
option time text "" "time limit, like 12:00:00 or 2-00:00:00; default that of the partition"
option partition text "" "partition"
option account text "" "account"
option qos text "" "quality of service"
option constraint text "" "required features of the nodes"
option sbatch text "" "further options of sbatch, like '--exclude=n1 --mail-type=END'"
option name text "" "name of the job; default genjax-VERB"
option output text "" "folder of the logs; default runs/slurm"
option modules text "" "modules to load, comma-separated"
option accelerator text "" "JAX variant to install: cpu, cuda13, cuda12; default cuda13 with --gpus, else cpu"
option parallel count 0 "concurrent runs of a sweep; 0 for no limit"
option grace size 120 "seconds before the time limit at which SIGTERM makes processes save"
option retries count 3 "restarts of a failed run within its allocation"
option requeues count 100 "how often the job is requeued at its time limit"
option pause seconds 30 "seconds before a restart"
option dry_run flag "" "print the batch script and submit nothing"
parse "$@"
opt_accelerator=${opt_accelerator:-$( ((opt_gpus > 0)) && echo cuda13 || echo cpu)}
one_of accelerator "$opt_accelerator" cpu cuda13 cuda12
[[ $opt_modules =~ ^[A-Za-z0-9._/,+-]*$ ]] || fail "--modules=$opt_modules: write --modules=cuda/13,gcc"
IFS=, read -ra modules <<<"$opt_modules"
tasks=$((opt_processes > 0 ? opt_processes : opt_gpus > 0 ? opt_gpus : 1))
((opt_gpus == 0 || tasks == opt_gpus)) ||
  fail "--processes=$tasks --gpus=$opt_gpus: under SLURM JAX assigns one GPU to each process; omit --processes"
[[ -z $opt_time || $opt_time =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || fail "--time=$opt_time: write 12:00:00 or 2-00:00:00"
name=${opt_name:-genjax-$verb}
[[ $name =~ ^[A-Za-z0-9._-]+$ ]] || fail "--name=$name: letters, digits, dots and dashes only"
logs=${opt_output:-$root/runs/slurm}
[[ $logs != *[[:space:]]* ]] || fail "--output=$logs: SLURM does not support spaces in this path"

runs=0 # number of runs of a sweep, as genjax.api.sweep expands them
if [[ $verb == sweep ]]; then
  runs=1
  for word in ${words[@]+"${words[@]}"}; do
    if [[ $word =~ ^--(over|configs)=(.+)$ ]]; then
      values=${BASH_REMATCH[2]//[^,]/}
      runs=$((runs * (${#values} + 1)))
    fi
    [[ $word != --over && $word != --configs ]] || fail "write $word=VALUES, without a space"
    [[ $word != --jobs=* && $word != --index=* ]] || fail "--jobs is for local sweeps: --parallel=N before the verb limits a job array"
  done
fi

directives() {
  echo "#SBATCH --job-name=$name"
  echo "#SBATCH --nodes=$opt_nodes"
  echo "#SBATCH --ntasks-per-node=$tasks"
  ((opt_gpus == 0)) || echo "#SBATCH --gpus-per-node=$opt_gpus"
  ((opt_cpus == 0)) || echo "#SBATCH --cpus-per-task=$opt_cpus"
  [[ -z $opt_memory ]] || echo "#SBATCH --mem=$opt_memory"
  [[ -z $opt_time ]] || echo "#SBATCH --time=$opt_time"
  local choice value more
  for choice in partition account qos constraint; do
    value=opt_$choice
    [[ -z ${!value} ]] || echo "#SBATCH --$choice=${!value}"
  done
  read -ra more <<<"$opt_sbatch"
  for value in ${more[@]+"${more[@]}"}; do echo "#SBATCH $value"; done
  ((runs == 0)) || echo "#SBATCH --array=0-$((runs - 1))$( ((opt_parallel == 0)) || echo "%$opt_parallel")"
  echo "#SBATCH --output=$logs/$( ((runs == 0)) && echo %x-%j || echo %x-%A_%a).out"
  echo "#SBATCH --open-mode=append"
  echo "#SBATCH --requeue"
  echo "#SBATCH --signal=B:TERM@$opt_grace"
}

script() {
  local command
  local program
  program="./launch/local.sh $(quote "$verb" ${words[@]+"${words[@]}"})"
  command=$program
  ((runs == 0)) || command="bash -c \"\$run\""
  ((opt_cpus == 0)) || command="--cpus-per-task=$opt_cpus $command" # srun does not inherit it from the job
  echo '#!/bin/bash'
  directives
  cat <<END
set -u
cd $(quote "$root") || exit 2
$([[ -z $opt_modules ]] || echo "module load ${modules[*]} || exit 2")
$([[ -z ${GENJAX_PYTHON:-} ]] || echo "export GENJAX_PYTHON=$(quote "$GENJAX_PYTHON")")
./launch/local.sh --accelerator=$opt_accelerator setup || exit 2
$( ((runs == 0)) || echo "run=\$(env -u SLURM_STEP_NUM_TASKS $program --index=\$SLURM_ARRAY_TASK_ID --dry_run) || exit 2")

# SLURM sends SIGTERM to this script alone, before the time limit; the processes save and exit with code 143.
stopping="" step=""
stop() {
  stopping=yes
  scancel --signal=TERM "\$SLURM_JOB_ID"
}
trap stop TERM

tries=0
while :; do
  srun --kill-on-bad-exit=1 $command &
  step=\$!
  wait "\$step"
  code=\$?
  if [[ -n \$stopping ]]; then # the signal ended the wait, not the run
    wait "\$step"
    code=\$?
  fi
  ((code == 0 || code == 2)) && exit "\$code"
  if [[ -n \$stopping ]]; then
    ((\${SLURM_RESTART_COUNT:-0} < $opt_requeues)) || exit "\$code"
    echo "launch: time limit reached, exit code \$code; requeueing"
    scontrol requeue "\$SLURM_JOB_ID"
    exit "\$code"
  fi
  ((tries++ < $opt_retries)) || exit "\$code"
  echo "launch: exit code \$code; attempt \$((tries + 1)) of $((opt_retries + 1)) in $opt_pause s"
  sleep $opt_pause &
  wait \$!
done
END
}

summary=(./launch/local.sh sweep ${words[@]+"${words[@]}"} --summary)
if [[ -n $opt_dry_run ]]; then
  script
  ((runs == 0)) || echo "# then: sbatch --dependency=afterany:JOB --job-name=$name-summary --wrap=$(quote "cd $(quote "$root") && $(quote "${summary[@]}")")"
  exit
fi
need sbatch "SLURM's commands are on the login nodes of a cluster"
mkdir -p "$logs"
job=$(script | sbatch --parsable)
job=${job%%;*}
echo "submitted $name as job $job; logs: $logs/"
if ((runs > 0)); then
  account=()
  [[ -z $opt_account ]] || account+=("--account=$opt_account")
  [[ -z $opt_partition ]] || account+=("--partition=$opt_partition")
  sbatch --parsable "--dependency=afterany:$job" "--job-name=$name-summary" "--output=$logs/%x-%j.out" ${account[@]+"${account[@]}"} \
    "--wrap=cd $(quote "$root") && $(quote "${summary[@]}")" >/dev/null
fi
