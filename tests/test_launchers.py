"""The local launcher, its supervisor, and the common parts of all launchers: arguments, retries, signals, dry runs."""

import re
import signal
import subprocess
import sys
import time

import pytest
from launching import (
    LAUNCH,
    NAMES,
    NASTY,
    RECORD,
    SLEEP,
    counting,
    environment,
    launch,
    printed,
    program,
    recorded,
    starts,
)


@pytest.fixture
def fake_python(tmp_path) -> dict[str, str]:
    """A fake Python that records the arguments of programs, and runs the real supervisor."""
    python = program(
        tmp_path / "python",
        f'[[ $2 != genjax.api.supervise ]] || exec {sys.executable} -S "$@"\n'
        f'[[ $1 != -c ]] || exec {sys.executable} "$@"\nexec {sys.executable} -S -c \'{RECORD}\' "$@"',
    )
    return {"GENJAX_PYTHON": str(python), "RECORD": str(tmp_path / "record")}


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("local", [], "no verb given"),
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
        ("tpu", ["--zone=z", "--dry_run", "train"], "no accelerator type given: --type"),
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
def test_wrong_arguments_print_one_line_and_exit_with_code_2(name, words, expected):
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


def test_arguments_reach_the_program_unchanged(fake_python, tmp_path):
    assert launch("local", "train", *NASTY, **fake_python).returncode == 0
    assert recorded(tmp_path / "record") == [["-m", "experiments.train", *NASTY]]


def test_several_processes_get_one_port_and_distinct_indices(fake_python, tmp_path):
    done = launch("local", "--processes=3", "--devices=2", "train", *NASTY, **fake_python)
    assert done.returncode == 0, done.stderr
    found = sorted(recorded(tmp_path / "record"), key=lambda words: words[-1])
    (port,) = {words[-3] for words in found}
    assert re.fullmatch(r"--coordinator=localhost:[1-9]\d{3,4}", port)
    flags = [
        ["-m", "experiments.train", *NASTY, port, "--num_processes=3", f"--process_id={k}"] for k in range(3)
    ]
    assert found == flags


def test_a_dry_run_prints_the_command_that_runs(fake_python, tmp_path):
    """The output of the dry run, run by a shell, starts the same programs as the launcher."""
    text = printed("local", "train", *NASTY, **fake_python)
    env = environment(**fake_python)
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
    command = [sys.executable, "-S", "-m", "genjax.api.supervise", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())


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
def test_all_codes_but_0_and_2_are_retried(tmp_path, codes, retries, code, count):
    path = counting(tmp_path / "program", codes)
    done = supervise(f"--retries={retries}", "--pause=0", "--", str(path))
    assert (done.returncode, starts(path)) == (code, count)


def test_a_failed_process_ends_the_others(tmp_path):
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
    assert "killing the remaining processes after 0.5 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_once_and_nothing_is_retried(tmp_path, number):
    """A second signal makes programs exit at once, so one signal must not be delivered twice."""
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
        "genjax.api.supervise",
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
