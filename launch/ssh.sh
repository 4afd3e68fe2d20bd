#!/usr/bin/env bash
# Machines with SSH: ./launch/ssh.sh --hosts=A,B [options] VERB [flags]
#
# Starts one process per host; the first is the coordinator, and output lines of the others are labelled. When one
# fails, all are terminated and restarted, and the run resumes. On Ctrl-C or a lost connection all save, then exit.
# Hosts need key-based SSH, Python 3.11, and a --workdir on a shared file system.
#
#   ./launch/ssh.sh --hosts=gpu1,gpu2 --accelerator=cuda13 --rsync train --config=gan_digits --workdir=/shared/gan

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

option hosts text "" "ssh hosts, comma-separated, like user@a,b"
option hostfile text "" "file with one host per line, instead of --hosts"
option coordinator text "" "address of the first host for the others; default its name"
option port size 8476 "port of the coordinator"
option directory text genjax "folder of the code on the hosts"
option rsync flag "" "copy the code to the hosts first (deletes nothing there)"
option accelerator text cpu "JAX variant to install on the hosts: cpu, cuda13, cuda12, tpu"
option python text "" "existing Python environment on the hosts, instead of installing one"
option ssh text ssh "ssh command, with its options"
option retries count 3 "restarts of a failed run"
option pause seconds 10 "seconds before a restart"
option grace seconds 60 "seconds between SIGTERM and SIGKILL, for processes to save"
option dry_run flag "" "print the commands and do nothing"
parse "$@"
one_of accelerator "$opt_accelerator" cpu cuda13 cuda12 tpu
[[ $verb != suite ]] || fail "a suite runs on one machine: local.sh"
[[ $verb != sweep ]] || fail "a sweep runs on one machine (local.sh) or as an array (slurm.sh)"

if [[ -n $opt_hostfile ]]; then
  [[ -r $opt_hostfile ]] || fail "--hostfile=$opt_hostfile cannot be read"
  opt_hosts=$(sed 's/#.*//' "$opt_hostfile" | tr -s ' \t\n' ',' | sed 's/^,//;s/,$//')
fi
[[ -n $opt_hosts ]] || fail "no hosts given: --hosts=A,B or --hostfile=FILE"
[[ ",$opt_hosts," != *,,* ]] || fail "--hosts=$opt_hosts has an empty name"
IFS=, read -ra hosts <<<"$opt_hosts"
IFS=' ' read -ra ssh <<<"$opt_ssh"
[[ ${#ssh[@]} != 0 ]] || fail "--ssh=$opt_ssh: write --ssh='ssh -p 2222'"
need "${ssh[0]}" "it starts the processes"
coordinator=${opt_coordinator:-${hosts[0]#*@}}:$opt_port

if [[ -n $opt_rsync ]]; then
  need rsync "--rsync copies the code with it"
  for host in "${hosts[@]}"; do
    act rsync --archive --compress --exclude=.git --filter=':- .gitignore' -e "$opt_ssh" "$root/" "$host:$opt_directory/"
  done
fi

# The program saves and exits on SIGTERM. SSH does not forward the signal, but EOF on standard input.
watched() { # watched COMMAND...: a line of shell that runs it until EOF on standard input
  local line
  line="cd $(quote "$opt_directory") || exit 2; exec 3<&0; "
  [[ -z $opt_python ]] || line+="export GENJAX_PYTHON=$(quote "$opt_python"); "
  line+="$(quote "$@") </dev/null & run=\$!; "
  line+="{ read -r _ <&3; kill -TERM \$run; sleep $opt_grace; kill -KILL \$run; } >/dev/null 2>&1 & watch=\$!; "
  line+="wait \$run; code=\$?; kill \$watch 2>/dev/null; exit \$code"
  quote bash -c "$line"
}

commands=() labels=""
for ((process = 0; process < ${#hosts[@]}; process++)); do
  command=(./launch/local.sh)
  [[ -n $opt_python ]] || command+=("--accelerator=$opt_accelerator")
  command+=("$verb" ${words[@]+"${words[@]}"})
  ((${#hosts[@]} == 1)) ||
    command+=("--coordinator=$coordinator" "--num_processes=${#hosts[@]}" "--process_id=$process")
  ((process == 0)) || commands+=(":::")
  commands+=("${ssh[@]}" -o BatchMode=yes -o ServerAliveInterval=15 "${hosts[process]}" "$(watched "${command[@]}")")
  labels+=${labels:+,}${hosts[process]}
done
python=python3
[[ -n $opt_dry_run ]] || python=$(find_python)
supervised=("$python" -m genjax.api.supervise "--retries=$opt_retries" "--pause=$opt_pause" "--grace=$opt_grace")
supervised+=("--labels=$labels" --stop=stdin -- "${commands[@]}")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
[[ -z $opt_dry_run ]] || echo "export PYTHONPATH=$(quote "$PYTHONPATH")"
finish "${supervised[@]}"
