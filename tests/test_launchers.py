"""The launchers with programs that stand in for Python, srun, ssh and gcloud: words, retries, signals, dry runs."""

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

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
NAMES = ("local", "ssh", "slurm", "tpu", "kubernetes", "skypilot")
LEAST = {  # the options without which a launcher has nowhere to go
    "local": ["--processes=2"],
    "ssh": ["--hosts=a,me@b"],
    "slurm": ["--nodes=2"],
    "tpu": ["--type=v5litepod-16", "--zone=us-west4-a"],
    "kubernetes": ["--image=r/genjax", "--claim=runs", "--nodes=2"],
    "skypilot": ["--gpus=H100:8", "--bucket=s3://mine", "--nodes=2"],
}
NASTY = [
    "--config=it's",
    "--config.a=(1, 2)",
    '--config.b="x\\y"',
    "--config.c=$(HOME) `ls` ${A}",
    "--config.d=*&;|<#!é",
]
SLEEP = "sleep 100 >/dev/null 2>&1 & wait $!"  # an orphan of it keeps no pipe open
RECORD = 'import json, os, sys; open(os.environ["RECORD"], "a").write(json.dumps(sys.argv[1:]) + "\\n")'


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return kept | {"GENJAX_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | more


def launch(name: str, *words: str, **env: str) -> subprocess.CompletedProcess:
    command = [str(LAUNCH / f"{name}.sh"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment(**env), cwd=ROOT
    )


def printed(name: str, *words: str, **env: str) -> str:
    done = launch(name, *LEAST[name], "--dry_run", *words, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(path: Path, text: str, shell: str = "/usr/bin/env bash") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shell}\n{text}\n")
    path.chmod(0o755)
    return path


def recorded(path: Path) -> list[list[str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path) -> dict[str, str]:
    """A Python that records the words of programs, and supervises as the real one does."""
    python = program(
        tmp_path / "python",
        f'[[ $2 != genjax.supervise ]] || exec {sys.executable} -S "$@"\n'
        f'[[ $1 != -c ]] || exec {sys.executable} "$@"\nexec {sys.executable} -S -c \'{RECORD}\' "$@"',
    )
    return {"GENJAX_PYTHON": str(python), "RECORD": str(tmp_path / "record")}


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("local", [], "say what to run"),
        ("local", ["trian"], "unknown verb 'trian': did you mean 'train'? (one of: train, "),
        ("local", ["--proceses=2", "train"], "unknown option --proceses: did you mean 'processes'?"),
        ("local", ["--devices=two", "train"], "--devices=two: write a whole number, 1 or more"),
        ("local", ["--devices", "train"], "--devices needs a value"),
        ("local", ["--dry_run=yes", "train"], "--dry_run takes no value"),
        ("local", ["--config=x", "train"], "after the verb, ./launch/local.sh train --config=x"),
        ("local", ["--processes=2", "test"], "takes none of the options"),
        ("local", ["--processes=2", "sweep"], "--jobs=2 after the verb"),
        ("local", ["--processes=2", "suite"], "one at a time"),
        ("skypilot", ["--gpus=H100:8", "--bucket=s3://b", "suite"], "local.sh"),
        ("ssh", ["train"], "--hosts=A,B"),
        ("ssh", ["--hosts=a,,b", "train"], "empty name"),
        ("ssh", ["--hosts=a", "--accelerator=cuda", "train"], "did you mean 'cuda13'?"),
        ("slurm", ["--time=later", "train"], "--time=later: write 12:00:00"),
        ("slurm", ["--gpus=8", "--processes=2", "train"], "one GPU"),
        ("slurm", ["sweep", "--jobs=2"], "--parallel=N"),
        ("tpu", ["--zone=z", "--dry_run", "train"], "say which: --type"),
        ("tpu", ["--zone=z", "--type=v5lite-16", "--dry_run", "train"], "did you mean 'v5litepod-16'?"),
        ("kubernetes", ["--image=i", "--dry_run", "train"], "--claim=NAME"),
        (
            "kubernetes",
            ["--image=i", "--claim=c", "--tpu=t", "--topology=3x3", "--dry_run", "train"],
            "9 chips, which hosts of --chips=4 do not divide",
        ),
        ("skypilot", ["--gpus=8", "--bucket=s3://b", "train"], "like H100:8"),
        ("skypilot", ["--gpus=H100:8", "train"], "--bucket"),
    ],
)
def test_a_wrong_word_is_one_line_and_code_2(name, words, expected):
    done = launch(name, *words)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert expected in line


@pytest.mark.parametrize("name", NAMES)
def test_dry_runs_need_nothing_installed_and_help_names_all_options(name):
    bare = {"PATH": "/usr/bin:/bin", "GENJAX_PYTHON": "/nowhere/python"}
    assert "train" in printed(name, "train", "--config=gan_digits", **bare)
    shown = launch(name, "--help", **bare)
    assert shown.returncode == 0
    declared = re.findall(r"^option (\w+)", (LAUNCH / f"{name}.sh").read_text(), re.MULTILINE)
    for option in declared:
        assert f"--{option}" in shown.stdout
    assert not shown.stderr


def test_words_reach_the_program_as_they_were_written(stand_in, tmp_path):
    assert launch("local", "train", *NASTY, **stand_in).returncode == 0
    assert recorded(tmp_path / "record") == [["-m", "experiments.train", *NASTY]]


def test_several_processes_share_a_port_and_nothing_else(stand_in, tmp_path):
    done = launch("local", "--processes=3", "--devices=2", "train", *NASTY, **stand_in)
    assert done.returncode == 0, done.stderr
    found = sorted(recorded(tmp_path / "record"), key=lambda words: words[-1])
    (port,) = {words[-3] for words in found}
    assert re.fullmatch(r"--coordinator=localhost:[1-9]\d{3,4}", port)
    flags = [
        ["-m", "experiments.train", *NASTY, port, "--num_processes=3", f"--process_id={k}"] for k in range(3)
    ]
    assert found == flags


def test_a_printed_command_is_the_one_that_runs(stand_in, tmp_path):
    """The dry run's text, run by a shell, does what the launcher would have done."""
    text = printed("local", "train", *NASTY, **stand_in)
    env = environment(**stand_in)
    subprocess.run(["bash", "-eu"], input=text, text=True, env=env, check=True, capture_output=True)
    assert sorted(words[2:-3] for words in recorded(tmp_path / "record")) == [NASTY, NASTY]
    assert "xla_force_host_platform_device_count" in text


def test_devices_are_virtual_or_gpus():
    assert "device_count=5'" in printed("local", "--devices=5", "train")
    given = {"CUDA_VISIBLE_DEVICES": "4,5,6,7", "JAX_PLATFORMS": ""}
    shown = re.findall(r"CUDA_VISIBLE_DEVICES=(\S+)", printed("local", "train", **given))
    assert shown == ["4,5", "6,7"]
    shown = re.findall(r"CUDA_VISIBLE_DEVICES=(\S+)", printed("local", "--devices=1", "train", **given))
    assert shown == ["4", "5"]
    assert "more than the 4 GPUs" in launch("local", "--processes=3", "--devices=2", "train", **given).stderr


# -- the supervisor


def supervise(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-S", "-m", "genjax.supervise", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())


def counting(path: Path, codes: list[int]) -> Path:
    """A program that ends with the next of some codes each time it is started."""
    text = f"echo >>{path}.starts\nset -- {' '.join(map(str, codes))}\nshift $(($(wc -l <{path}.starts) - 1))\nexit $1"
    return program(path, text)


def starts(path: Path) -> int:
    return len(Path(f"{path}.starts").read_text().splitlines())


@pytest.mark.parametrize(
    ("codes", "retries", "code", "count"),
    [
        ([75, 75, 0], 3, 0, 3),
        ([2, 0], 3, 2, 1),
        ([75, 137, 1], 1, 137, 2),
        ([1, 143, 2, 0], 5, 2, 3),
        ([0], 3, 0, 1),
    ],
)
def test_all_codes_but_0_and_2_are_tried_again(tmp_path, codes, retries, code, count):
    path = counting(tmp_path / "program", codes)
    done = supervise(f"--retries={retries}", "--pause=0", "--", str(path))
    assert (done.returncode, starts(path)) == (code, count)


def test_one_that_fails_ends_the_others(tmp_path):
    others = program(tmp_path / "other", f"trap 'echo saved; exit 143' TERM\necho started\n{SLEEP}")
    ready = tmp_path / "ready"
    failing = program(
        tmp_path / "failing", f"until [[ -e {ready} ]]; do sleep 0.05; done; sleep 0.2; exit 75"
    )
    stuck = program(tmp_path / "stuck", f"trap '' TERM\ntouch {ready}\nsleep 100 >/dev/null")
    words = ["--retries=0", "--grace=0.5", "--labels=a,b,c", "--"]
    done = supervise(*words, str(failing), ":::", str(others), ":::", str(stuck))
    assert done.returncode == 75
    assert done.stdout.splitlines() == ["[b] started", "[b] saved"]
    assert "process a ended with code 75; ending the others" in done.stderr
    assert "killing what is left after 0.5 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_once_and_nothing_is_tried_again(tmp_path, number):
    """Programs take a second signal as an order to end at once, so that one must not become two."""
    text = f"""
import signal, sys, time
count = []
signal.signal({int(number)}, lambda *_: count.append(1))
open(sys.argv[1], "w").close()
while not count: time.sleep(0.01)
time.sleep(float(sys.argv[2]))
print(f"got {{len(count)}}", flush=True)
sys.exit({128 + number})"""
    path = program(tmp_path / "program", text, sys.executable)
    marks = [tmp_path / "a", tmp_path / "b"]
    command = [
        sys.executable,
        "-S",
        "-m",
        "genjax.supervise",
        "--pause=0",
        "--",
        str(path),
        str(marks[0]),
        "0.2",
    ]
    command += [":::", str(path), str(marks[1]), "0.5"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    while not all(mark.exists() for mark in marks):
        time.sleep(0.02)
    running.send_signal(number)
    out, said = running.communicate(timeout=300)
    assert running.returncode == 128 + number
    assert "try 2" not in said
    assert sorted(out.splitlines()) == ["[1] got 1", "got 1"]


# -- SSH


def test_ssh_passes_words_ends_and_codes_through(tmp_path):
    """A stand-in for ssh runs the line here, as a host's login shell would."""
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
    """A batch script, and commands of SLURM that note what they are called with."""
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
def test_slurm_tries_again_within_its_allocation(tmp_path, codes, code, count):
    script, env = slurm_script(tmp_path, codes, "train", *NASTY)
    done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"srun --kill-on-bad-exit=1 ./launch/local.sh train {' '.join(NASTY)}"] * count


@pytest.mark.parametrize("restarts", [0, 100])
def test_slurm_saves_before_the_limit_and_queues_again(tmp_path, restarts):
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


# -- what is written for others to run


def test_jobset():
    """The fields of jobset.x-k8s.io/v1alpha2 that matter; the whole was checked against its schema (docs)."""
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
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert (container["volumeMounts"][0]["mountPath"], claim) == ("/genjax/runs", "runs")
    flags = ["--coordinator=genjax-worker-0-0.genjax:8476", "--num_processes=2"]
    kept = [
        word.replace("$(", "$$(") for word in NASTY
    ]  # Kubernetes would put a variable's value for $(HOME)
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
    """A folder with a ./launch/local.sh that prints its words."""
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
    """A gcloud whose slice is there once it is created, is lost with code 255, and whose worker is this machine."""
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


def test_a_preempted_slice_is_asked_for_again_and_the_run_goes_on(tmp_path):
    env = gcloud(tmp_path, [255, 0])
    done = launch("tpu", *LEAST["tpu"], "--bucket=gs://b", "--delete", "train", *NASTY, **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(" ".join(["--retries=3 --pause=20 train", *NASTY])) == 2
    once = ["create", "scp", "ssh", "ssh"]
    assert (tmp_path / "calls").read_text().split() == [*once, "delete", *once, "delete"]


@pytest.mark.parametrize("code", [75, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_failed_for_good_is_not_tried_on_another_slice(tmp_path, code):
    done = launch("tpu", *LEAST["tpu"], "train", **gcloud(tmp_path, [code]))
    assert done.returncode == code
    assert starts(tmp_path / "next") == 1


def test_tpu_dry_run_is_shell(tmp_path):
    text = printed("tpu", "--slices=2", "--spot", "--bucket=b", "--delete", "train", *NASTY)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "--node-count=2 --node-prefix=genjax --spot" in text
    assert "--runtime-version=v2-alpha-tpuv5-lite" in text
