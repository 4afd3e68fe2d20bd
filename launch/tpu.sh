#!/usr/bin/env bash
# Cloud TPU slices by gcloud: ./launch/tpu.sh --name=N --type=v5litepod-16 --zone=Z [options] VERB [flags]
#
# VERB [flags] creates the queued resource if it does not exist, copies and installs the code on all workers, starts the
# run on all of them and follows its log. The workers restart a failed run, which resumes; a preempted slice is deleted
# and recreated, and the run resumes from --bucket. A lost connection or Ctrl-C does not stop the run: the same command
# follows it again. Instead of a verb: create, setup, status, stop (all save, then exit), delete.
#
#   ./launch/tpu.sh --name=gan --type=v5litepod-16 --zone=us-west4-a --spot --bucket=mine train --config=gan_digits

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
actions="create setup status stop delete"

option name text genjax "name of the queued resource and its nodes"
option type text "" "accelerator type, like v4-32, v5litepod-16, v5p-8, v6e-64"
option zone text "" "zone, like us-west4-a; default that of gcloud"
option project text "" "project; default that of gcloud"
option version text "" "runtime version; default by type"
option slices size 1 "number of slices, connected over the data-centre network"
option spot flag "" "spot capacity, which may be preempted"
option reserved flag "" "reserved capacity"
option valid_until text "" "how long to wait for capacity, like 6h; default without limit"
option bucket text "" "Cloud Storage bucket mounted as runs/ on all workers"
option retries count 3 "restarts of a failed run by the workers"
option pause seconds 20 "seconds before a restart"
option recreate count 20 "how often a preempted slice is recreated"
option delete flag "" "delete the slice after the run"
option dry_run flag "" "print the commands and do nothing"
parse "$@"
[[ $opt_name =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] || fail "--name=$opt_name: lower-case letters, digits and dashes"
[[ $verb != suite ]] || fail "a suite runs on one machine: local.sh"
[[ $verb != sweep ]] || fail "a sweep runs on one machine (local.sh) or as an array (slurm.sh)"
opt_bucket=${opt_bucket#gs://}

place=()
[[ -z $opt_zone ]] || place+=("--zone=$opt_zone")
[[ -z $opt_project ]] || place+=("--project=$opt_project")
need gcloud "see cloud.google.com/sdk"
[[ -n $opt_dry_run || -n $opt_zone || -n $(gcloud config get-value compute/zone 2>/dev/null) ]] || fail "no zone given: --zone=us-west4-a"

tpus() { # tpus ACTION [arguments]: gcloud on the queued resource
  act gcloud compute tpus queued-resources "$1" "$opt_name" ${place[@]+"${place[@]}"} "${@:2}"
}

on_all() { # on_all COMMAND: runs it on all workers of all slices; exit code of the first that fails
  tpus ssh --node=all --worker=all --batch-size=all "--command=$1"
}

create() {
  local words=("--accelerator-type=$opt_type" "--runtime-version=$(runtime_version)")
  if ((opt_slices > 1)); then
    words+=("--node-count=$opt_slices" "--node-prefix=$opt_name")
  else
    words+=("--node-id=$opt_name")
  fi
  [[ -z $opt_spot ]] || words+=(--spot)
  [[ -z $opt_reserved ]] || words+=(--reserved)
  [[ -z $opt_valid_until ]] || words+=("--valid-until-duration=$opt_valid_until")
  tpus create "${words[@]}"
}

runtime_version() {
  case $opt_type in
    v2-* | v3-* | v4-*) echo "${opt_version:-tpu-ubuntu2204-base}" ;;
    v5litepod-*) echo "${opt_version:-v2-alpha-tpuv5-lite}" ;;
    v5p-*) echo "${opt_version:-v2-alpha-tpuv5}" ;;
    v6e-*) echo "${opt_version:-v2-alpha-tpuv6e}" ;;
  esac
}

state() { # state of the queued resource; empty if it does not exist
  gcloud compute tpus queued-resources describe "$opt_name" ${place[@]+"${place[@]}"} '--format=value(state.state)' 2>/dev/null || true
}

ready() { # creates the resource if needed and waits for it; sets `fresh` unless it was active already
  local now shown=""
  fresh=yes
  if [[ -n $opt_dry_run ]]; then
    create
    echo "# waits until: gcloud compute tpus queued-resources describe $opt_name --format='value(state.state)' says ACTIVE"
    return
  fi
  now=$(state)
  [[ $now != ACTIVE ]] || fresh=""
  while [[ $now != ACTIVE ]]; do
    case $now in
      "") create ;;
      SUSPENDING | SUSPENDED | FAILED) tpus delete --force --quiet ;;
      *) sleep "${GENJAX_TPU_POLL:-30}" ;;
    esac
    now=$(state)
    [[ $now == "$shown" ]] || echo "launch: $opt_name is ${now:-absent}" >&2
    shown=$now
  done
}

set_up() { # installs code, Python 3.12, .venv and bucket on all workers
  local archive=/tmp/genjax-$opt_name.tar.gz line
  if [[ -z $opt_dry_run ]]; then
    (cd "$root" && git ls-files --cached --others --exclude-standard -z | tar --null --files-from=- -czf "$archive")
  else
    echo "# archives the files that git does not ignore in $archive"
  fi
  act gcloud compute tpus queued-resources scp "$archive" "$opt_name:genjax.tar.gz" ${place[@]+"${place[@]}"} --node=all --worker=all --batch-size=all
  line="mkdir -p genjax && tar -xzf genjax.tar.gz -C genjax && cd genjax"
  line+=" && python3 -m pip install --quiet --user uv && python3 -m uv python install --quiet 3.12"
  line+=" && PATH=\"\$(dirname \"\$(python3 -m uv python find 3.12)\"):\$PATH\" ./launch/local.sh --accelerator=tpu setup"
  if [[ -n $opt_bucket ]]; then
    line+=" && { command -v gcsfuse >/dev/null || { $(gcsfuse); }; } && mkdir -p runs"
    line+=" && { mountpoint -q runs || gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 $(quote "$opt_bucket") runs; }"
  fi
  on_all "$line"
}

gcsfuse() { # prints the command that installs gcsfuse from Google's packages
  local key=/usr/share/keyrings/cloud.google.asc site=https://packages.cloud.google.com/apt
  echo "curl -fsS $site/doc/apt-key.gpg | sudo tee $key >/dev/null &&" \
    "echo \"deb [signed-by=$key] $site gcsfuse-\$(lsb_release -cs) main\" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null &&" \
    "sudo apt-get update -qq && sudo apt-get install -y -qq gcsfuse"
}

# On the worker the run has its own session and outlives the connection, which only follows its log.
follow() {
  local run line
  run="$(quote ./launch/local.sh "--retries=$opt_retries" "--pause=$opt_pause" "$verb" ${words[@]+"${words[@]}"})"
  line="cd genjax || exit 2; "
  line+="if ! kill -0 \"\$(cat run.pid 2>/dev/null)\" 2>/dev/null; then rm -f run.code; echo $(quote "$run") >run.command; "
  line+="nohup setsid bash -c $(quote "trap : TERM; $run; echo \$? >run.code") >run.log 2>&1 </dev/null & echo \$! >run.pid; "
  line+="elif [[ \$(cat run.command) != $(quote "$run") ]]; then echo 'error: another run is active: stop it first' >&2; exit 2; fi; "
  line+="for _ in {1..50}; do [[ -e run.log ]] && break; sleep 0.1; done; "
  line+="tail -n +1 --pid=\"\$(cat run.pid)\" -f run.log; exit \"\$(cat run.code || echo 1)\""
  on_all "bash -c $(quote "$line")"
}

case $verb in
  create | setup | status | stop | delete) [[ ${#words[@]} == 0 ]] || fail "'$verb' takes no arguments" ;;
esac
if [[ $verb != status && $verb != stop && $verb != delete ]]; then
  [[ -n $opt_type ]] || fail "no accelerator type given: --type=v5litepod-16"
  [[ -n $(runtime_version) && $opt_type =~ -[0-9]+$ ]] ||
    fail "--type=$opt_type: $(nearest "$opt_type" v2-8 v3-8 v4-8 v5litepod-16 v5p-8 v6e-16)"
fi
case $verb in
  create) ready ;;
  setup) set_up ;;
  status) tpus describe ;;
  stop) on_all "kill -TERM -- -\$(cat genjax/run.pid)" ;;
  delete) tpus delete --force --quiet ;;
  *)
    [[ -n $opt_bucket ]] || echo "launch: without --bucket, runs/ is on the disks of the workers and is lost with the slice" >&2
    tries=0
    while :; do
      ready
      ((tries > 0)) && [[ -z $fresh ]] || set_up
      code=0
      follow || code=$?
      [[ $code != 0 && $code != 2 && -z $opt_dry_run ]] || break
      if ((code != 255)) && [[ $(state) == ACTIVE ]]; then break; fi # the workers have used all restarts
      ((tries++ < opt_recreate)) || break
      echo "launch: exit code $code; checking the slice" >&2
      sleep "${GENJAX_TPU_POLL:-30}"
    done
    [[ -z $opt_delete ]] || tpus delete --force --quiet
    exit "$code"
    ;;
esac
