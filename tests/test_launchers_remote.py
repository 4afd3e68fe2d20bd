"""Remote launchers with fake srun, ssh and gcloud: arguments, retries, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from launching import (
    LEAST,
    NASTY,
    RECORD,
    ROOT,
    SLEEP,
    counting,
    launch,
    printed,
    program,
    recorded,
    starts,
)

# -- SSH


def test_ssh_forwards_arguments_signals_and_exit_codes(tmp_path):
    """A fake ssh runs the command here, as the login shell of the host would."""
    program(
        tmp_path / "host" / "launch" / "local.sh",
        f"{sys.executable} -S -c '{RECORD}' \"$@\"\n"
        "if [[ $* == *process_id=0* ]]; then until [[ -e $RECORD.ready ]]; do sleep 0.05; done; exit 75; fi\n"
        "trap 'echo saved >>\"$RECORD.saved\"; exit 143' TERM\n"
        f'touch "$RECORD.ready"; {SLEEP}',
    )
    ssh = program(tmp_path / "ssh", 'echo "$5" >>"$RECORD.hosts"\nexec sh -c "$6"')
    record = tmp_path / "record"
    options = [
        f"--ssh={ssh}",
        "--hosts=me@one,two",
        f"--directory={tmp_path}/host",
        "--retries=0",
    ]
    done = launch("ssh", *options, "train", *NASTY, RECORD=str(record))
    assert done.returncode == 75, done.stderr
    flags = ["--coordinator=one:8476", "--num_processes=2"]
    expected = [["--accelerator=cpu", "train", *NASTY, *flags, f"--process_id={k}"] for k in (0, 1)]
    assert sorted(recorded(record)) == expected
    assert Path(f"{record}.hosts").read_text().split().count("me@one") == 1
    assert Path(f"{record}.saved").read_text() == "saved\n"


# -- SLURM


def slurm_script(tmp_path: Path, codes: list[int], *words: str) -> tuple[Path, dict[str, str]]:
    """A batch script, and fake SLURM commands that record their arguments."""
    script = tmp_path / "script.sh"
    text = printed("slurm", "--pause=0.1", *words).replace(f"cd {ROOT}", f"cd {tmp_path}")
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)
    program(tmp_path / "launch" / "local.sh", ":")
    counting(tmp_path / "bin" / "next", codes)
    note = f'echo "$(basename "$0") $*" >>{tmp_path}/calls'
    program(
        tmp_path / "bin" / "srun",
        f"{note}\necho $$ >{tmp_path}/srun.pid\n{tmp_path}/bin/next\ncode=$?\n"
        f"end() {{ sleep 0.2; echo saved >>{tmp_path}/calls; exit 143; }}\n"
        f"((code != 143)) || {{ trap end TERM; touch {tmp_path}/ready; {SLEEP}; }}\nexit $code",
    )
    program(tmp_path / "bin" / "scancel", f"{note}\nkill -TERM $(cat {tmp_path}/srun.pid)")
    program(tmp_path / "bin" / "scontrol", note)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    return script, {"PATH": path, "SLURM_JOB_ID": "7", "TMPDIR": str(tmp_path)}


@pytest.mark.parametrize(("codes", "code", "count"), [([75, 1, 0], 0, 3), ([2], 2, 1), ([75] * 9, 75, 4)])
def test_slurm_retries_within_its_allocation(tmp_path, codes, code, count):
    script, env = slurm_script(tmp_path, codes, "train", *NASTY)
    done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"srun --kill-on-bad-exit=1 ./launch/local.sh train {' '.join(NASTY)}"] * count


@pytest.mark.parametrize("restarts", [0, 100])
def test_slurm_saves_before_the_time_limit_and_requeues(tmp_path, restarts):
    script, env = slurm_script(tmp_path, [143], "--grace=60", "train")
    env |= {"SLURM_RESTART_COUNT": str(restarts)}
    running = subprocess.Popen(["bash", str(script)], env=env, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=300)
    assert running.returncode == 143
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[1:] == ["scancel --signal=TERM 7", "saved", "scontrol requeue 7"][: 3 - restarts // 100]


def test_slurm_directives():
    words = [
        "--gpus=8",
        "--time=1-00:00:00",
        "--partition=p",
        "--sbatch=--exclude=n1 --mail-type=END",
        "--modules=a,b/2",
    ]
    text = printed("slurm", *words, "--memory=64G", "--cpus=4", "train")
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert found | {"output": ""} == {
        "job-name": "genjax-train", "nodes": "2", "ntasks-per-node": "8", "gpus-per-node": "8", "cpus-per-task": "4",
        "mem": "64G", "time": "1-00:00:00", "partition": "p", "exclude": "n1", "mail-type": "END",
        "output": "", "open-mode": "append", "requeue": "", "signal": "B:TERM@120",
    }  # fmt: skip
    assert "module load a b/2" in text
    assert "srun --kill-on-bad-exit=1 --cpus-per-task=4 " in text
    assert "--accelerator=cuda13 setup" in text


# -- generated manifests


def test_jobset():
    """The relevant fields of jobset.x-k8s.io/v1alpha2; the whole was checked against its schema (docs)."""
    job = yaml.safe_load(printed("kubernetes", "--gpus=8", "--retries=7", "train", *NASTY))
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert job["spec"]["failurePolicy"] == {
        "maxRestarts": 7,
        "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
    (worker,) = job["spec"]["replicatedJobs"]
    spec = worker["template"]["spec"]
    assert (worker["replicas"], spec["parallelism"], spec["completions"]) == (1, 2, 2)
    assert (spec["backoffLimit"], spec["completionMode"]) == (0, "Indexed")
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # required by podFailurePolicy
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert (container["volumeMounts"][0]["mountPath"], claim) == ("/genjax/runs", "runs")
    flags = ["--coordinator=genjax-worker-0-0.genjax:8476", "--num_processes=2"]
    kept = [word.replace("$(", "$$(") for word in NASTY]  # Kubernetes expands $(HOME)
    assert container["args"] == ["train", *kept, *flags]
    ran = subprocess.run(
        [*container["command"], "train", *NASTY],
        env={"PATH": os.environ["PATH"], "JOB_COMPLETION_INDEX": "1"},
        cwd=_recording(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout) == ["train", *NASTY, "--process_id=1"]


def _recording() -> Path:
    """A folder with a ./launch/local.sh that prints its arguments."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    program(folder / "launch" / "local.sh", f"exec {sys.executable} -S -c '{show}' \"$@\"")
    return folder


def test_jobset_of_tpu_slices():
    options = [
        "--image=i",
        "--claim=c",
        "--tpu=tpu-v5-lite-podslice",
        "--topology=4x4",
        "--slices=3",
        "--spot",
    ]
    job = yaml.safe_load(launch("kubernetes", *options, "--dry_run", "train").stdout)
    exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    assert job["metadata"]["annotations"] == exclusive
    (worker,) = job["spec"]["replicatedJobs"]
    spec = worker["template"]["spec"]
    assert (worker["replicas"], spec["parallelism"], spec["completions"]) == (3, 4, 4)
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": 4}}
    assert pod["containers"][0]["args"] == ["train"]  # the hosts of a slice find each other


def test_skypilot_task():
    task = yaml.safe_load(printed("skypilot", "--spot", "--infra=gcp", "--retries=5", "train", *NASTY))
    assert task["num_nodes"] == 2
    assert task["resources"] == {
        "accelerators": "H100:8", "infra": "gcp", "use_spot": True, "job_recovery": {"max_restarts_on_errors": 0}
    }  # fmt: skip
    assert task["file_mounts"] == {"~/genjax-runs": {"source": "s3://mine", "mode": "MOUNT"}}
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    env = {"PATH": os.environ["PATH"], "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    ran = subprocess.run(
        ["bash", "-c", task["run"]], env=env, cwd=_recording(), capture_output=True, text=True, check=True
    )
    flags = ["--coordinator=10.0.0.1:8476", "--num_processes=2", "--process_id=1"]
    assert json.loads(ran.stdout) == ["--retries=5", "--pause=30", "train", *NASTY, *flags]


# -- TPU


def gcloud(tmp_path: Path, codes: list[int]) -> dict[str, str]:
    """A fake gcloud: create makes the slice, exit code 255 loses it, and the worker is this machine."""
    program(tmp_path / "home" / "genjax" / "launch" / "local.sh", f'echo "$*"\n{tmp_path}/next')
    counting(tmp_path / "next", codes)
    text = f"""
shift 3; action=$1
[[ $action == describe ]] || echo "$action" >>{tmp_path}/calls
case $action in
  create) echo ACTIVE >{tmp_path}/state ;;
  delete) rm {tmp_path}/state ;;
  describe) cat {tmp_path}/state ;;
  ssh)
    command=${{@: -1}}
    [[ $command != *tar* ]] || exit 0
    cd {tmp_path}/home && sh -c "${{command#--command=}}"
    code=$?
    ((code != 255)) || echo SUSPENDED >{tmp_path}/state
    exit $code ;;
esac"""
    program(tmp_path / "bin" / "gcloud", text)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "GENJAX_TPU_POLL": "0"}


def test_a_preempted_slice_is_recreated_and_the_run_resumes(tmp_path):
    env = gcloud(tmp_path, [255, 0])
    done = launch("tpu", *LEAST["tpu"], "--bucket=gs://b", "--delete", "train", *NASTY, **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(" ".join(["--retries=3 --pause=20 train", *NASTY])) == 2
    once = ["create", "scp", "ssh", "ssh"]
    assert (tmp_path / "calls").read_text().split() == [*once, "delete", *once, "delete"]


@pytest.mark.parametrize("code", [75, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failed_run_is_not_retried_on_another_slice(tmp_path, code):
    done = launch("tpu", *LEAST["tpu"], "train", **gcloud(tmp_path, [code]))
    assert done.returncode == code
    assert starts(tmp_path / "next") == 1


def test_tpu_dry_run_is_valid_shell(tmp_path):
    text = printed("tpu", "--slices=2", "--spot", "--bucket=b", "--delete", "train", *NASTY)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "--node-count=2 --node-prefix=genjax --spot" in text
    assert "--runtime-version=v2-alpha-tpuv5-lite" in text
