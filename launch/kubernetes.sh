#!/usr/bin/env bash
# Kubernetes: ./launch/kubernetes.sh --image=I --claim=C [options] VERB [flags]
#
# Writes a JobSet with one pod per node (GPU) or per host of TPU slices and applies it with kubectl; --dry_run prints it.
# When one pod fails, all are recreated and the run resumes, up to --retries times; a user error (exit code 2) fails the
# JobSet. The cluster needs the JobSet controller; build the image from launch/Dockerfile. Instead of a verb: status,
# logs, delete.
#
#   ./launch/kubernetes.sh --image=registry/genjax --claim=runs --nodes=2 --gpus=8 train --config=gan_digits
#   ./launch/kubernetes.sh --image=registry/genjax --claim=runs --tpu=tpu-v5-lite-podslice --topology=4x4 --slices=2 train

# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
actions="status logs delete"

option name text genjax "name of the JobSet"
option namespace text "" "namespace; default that of kubectl"
option image text "" "image with the code in --directory and its .venv installed"
option directory text /genjax "folder of the code in the image"
option claim text "" "persistent volume claim for runs/; all pods mount it (ReadWriteMany)"
option nodes size 1 "number of pods, one per node"
option gpus count 0 "GPUs per pod"
option tpu text "" "GKE TPU type, like tpu-v5-lite-podslice"
option topology text "" "topology of a slice, like 4x4 or 2x2x4"
option chips size 4 "TPU chips per host"
option slices size 1 "number of TPU slices, connected over the data-centre network"
option cpus text "" "CPU cores per pod, like 8"
option memory text "" "memory per pod, like 64Gi"
option spot flag "" "GKE spot nodes"
option queue text "" "local queue of Kueue"
option port size 8476 "port of the coordinator"
option grace size 120 "seconds between SIGTERM and SIGKILL, for a pod to save"
option retries count 10 "restarts of a failed run"
option dry_run flag "" "print the JobSet and apply nothing"
parse "$@"
[[ $opt_name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || fail "--name=$opt_name: at most 40 lower-case letters, digits and dashes"
[[ $verb != suite ]] || fail "a suite runs on one machine: local.sh"
[[ $verb != sweep ]] || fail "a sweep runs on one machine (local.sh) or as an array (slurm.sh)"

kubectl=(kubectl)
[[ -z $opt_namespace ]] || kubectl+=("--namespace=$opt_namespace")
need kubectl "see kubernetes.io/docs/tasks/tools"
case $verb in
  status) act "${kubectl[@]}" get jobset,pods "--selector=jobset.sigs.k8s.io/jobset-name=$opt_name" && exit ;;
  logs) act "${kubectl[@]}" logs --follow --prefix --max-log-requests=100 "--selector=jobset.sigs.k8s.io/jobset-name=$opt_name" && exit ;;
  delete) act "${kubectl[@]}" delete jobset "$opt_name" && exit ;;
esac

[[ -n $opt_image ]] || fail "no image given: --image=REGISTRY/genjax, built from launch/Dockerfile"
[[ -n $opt_claim ]] || fail "no storage for runs/ given: --claim=NAME (the disk of a pod is lost when it is recreated)"
[[ -z $opt_tpu || $opt_gpus == 0 ]] || fail "--tpu and --gpus exclude each other"
if [[ -n $opt_tpu ]]; then
  [[ $opt_topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology=$opt_topology: write the chips of a slice, like 4x4 or 2x2x4"
  slice=$((${opt_topology//x/*}))
  ((slice % opt_chips == 0)) || fail "--topology=$opt_topology has $slice chips, which hosts of --chips=$opt_chips do not divide"
  ((opt_nodes == 1)) || fail "--nodes is for GPUs: a slice has as many hosts as its --topology"
  pods=$((slice / opt_chips)) replicas=$opt_slices
else
  ((opt_slices == 1)) || fail "--slices is for --tpu"
  pods=$opt_nodes replicas=1
fi

selector() { # the nodeSelector of the pod, if any
  [[ -n $opt_tpu$opt_spot ]] || return 0
  echo "              nodeSelector:"
  [[ -z $opt_tpu ]] || echo "                cloud.google.com/gke-tpu-accelerator: $(json "$opt_tpu")"
  [[ -z $opt_tpu ]] || echo "                cloud.google.com/gke-tpu-topology: $(json "$opt_topology")"
  [[ -z $opt_spot ]] || echo '                cloud.google.com/gke-spot: "true"'
}

resources() {
  local lines=""
  ((opt_gpus == 0)) || lines+="                      nvidia.com/gpu: $opt_gpus"$'\n'
  [[ -z $opt_tpu ]] || lines+="                      google.com/tpu: $opt_chips"$'\n'
  [[ -z $opt_cpus ]] || lines+="                      cpu: $(json "$opt_cpus")"$'\n'
  [[ -z $opt_memory ]] || lines+="                      memory: $(json "$opt_memory")"$'\n'
  [[ -z $lines ]] || printf '                  resources:\n                    limits:\n%s' "$lines"
}

arguments() { # the arguments of the program, one per line; TPU hosts read their coordinator from the environment
  local flags=() word
  [[ -n $opt_tpu || $pods == 1 ]] ||
    flags=("--coordinator=$opt_name-worker-0-0.$opt_name:$opt_port" "--num_processes=$pods")
  for word in "$verb" ${words[@]+"${words[@]}"} ${flags[@]+"${flags[@]}"}; do
    echo "                    - $(json "${word//\$(/\$\$(}")" # Kubernetes expands \$(NAME) itself
  done
}

script='exec ./launch/local.sh "$@"'
# shellcheck disable=SC2016  # a variable of the pod
[[ -n $opt_tpu || $pods == 1 ]] || script+=' "--process_id=$JOB_COMPLETION_INDEX"'

jobset() {
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $opt_name
$([[ -z $opt_namespace ]] || echo "  namespace: $(json "$opt_namespace")")
$([[ -z $opt_queue ]] || printf '  labels:\n    kueue.x-k8s.io/queue-name: %s\n' "$(json "$opt_queue")")
$([[ -z $opt_tpu ]] || printf '  annotations:\n    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool\n')
spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: $opt_retries
    rules:
      - name: mistake
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: worker
      replicas: $replicas
      template:
        spec:
          completionMode: Indexed
          parallelism: $pods
          completions: $pods
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $opt_grace
$(selector)
              containers:
                - name: genjax
                  image: $(json "$opt_image")
                  workingDir: $(json "$opt_directory")
                  command: [/bin/bash, -c, $(json "$script"), launch]
                  args:
$(arguments)
$(resources)
                  volumeMounts:
                    - name: runs
                      mountPath: $(json "$opt_directory/runs")
                    - name: memory
                      mountPath: /dev/shm
              volumes:
                - name: runs
                  persistentVolumeClaim:
                    claimName: $(json "$opt_claim")
                - name: memory
                  emptyDir:
                    medium: Memory
END
}

if [[ -n $opt_dry_run ]]; then
  jobset | sed '/^$/d'
  exit
fi
jobset | sed '/^$/d' | "${kubectl[@]}" apply -f -
echo "follow it with $launcher --name=$opt_name${opt_namespace:+ --namespace=$opt_namespace} logs"
