"""Sweeps: expansion of grids, the queue with failing runs, and the summary against hand computation."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import quick
from test_programs import TINY

from genjax.api import sweep
from genjax.core.errors import UserError
from genjax.reports import sweep_table
from genjax.training import variations

ROOT = Path(__file__).parent.parent


def expand(*over: str, configs=("vae_mixture",), common=()):
    return variations.expand(configs, variations.parse_over(over), common)


# -- expansion


@pytest.mark.parametrize(
    ("configs", "over"),
    [
        (["vae_mixture"], []),
        (["vae_mixture"], ["seed=0,1,2"]),
        (["a/one.py:x", "two", "one:y"], ["seed=0,1", "optimizer.learning_rate=1e-3,3e-4,1e-4", "steps=5"]),
    ],
)
def test_runs_are_the_product_and_the_slurm_array_has_the_same_size(configs, over):
    trials = expand(*over, configs=configs)
    count = len(configs)
    for word in over:
        count *= word.count(",") + 1
    assert len(trials) == len({trial.name for trial in trials}) == count
    words = [f"--configs={','.join(configs)}", *(f"--over={word}" for word in over)]
    script = subprocess.run(
        [str(ROOT / "launch" / "slurm.sh"), "--dry_run", "--parallel=4", "sweep", *words],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"#SBATCH --array=0-{count - 1}%4\n" in script
    assert "--dependency=afterany:JOB" in script


def test_names_depend_on_config_and_overrides_alone():
    one = {trial.name for trial in expand("seed=0,1", "steps=7")}
    assert one == {"vae_mixture,seed=0,steps=7", "vae_mixture,seed=1,steps=7"}
    assert one == {trial.name for trial in expand("config.steps=7", "seed=1,0", common=[("ema", "0.9")])}
    assert one < {trial.name for trial in expand("steps=7,8", "seed=1,2,0", configs=["vae_mixture", "other"])}


def test_names_are_valid_file_names():
    trials = expand(
        "data.source.data_dir=/a b/c,/a-b-c," + "x" * 300 + "," + "x" * 301, configs=["dir/f.py:v"]
    )
    for trial in trials:
        assert "/" not in trial.name
        assert " " not in trial.name
        assert len(trial.name) < 140
    assert len({trial.name for trial in trials}) == 4
    assert trials[0].name.startswith("f-v,data.source.data_dir=-a-b-c")


@pytest.mark.parametrize(
    ("over", "common", "expected"),
    [
        (["seed=0", "seed=1"], (), "seed is given twice"),
        (["seed=0"], [("seed", "1")], "seed is given twice"),
        (["seed=0,0"], (), "two runs of this sweep are named vae_mixture,seed=0"),
        (["seed"], (), "write over="),
    ],
)
def test_ambiguous_grids_raise(over, common, expected):
    with pytest.raises(UserError, match=expected):
        expand(*over, common=common)


def test_overrides_are_validated_before_any_run():
    with pytest.raises(UserError, match="did you mean 'seed'"):
        expand("sed=0")[0].experiment()
    assert expand("seed=3", common=[("steps", "9")])[0].experiment().steps == 9


@pytest.mark.parametrize("jobs", [1, 2, 3, 5, 8])
def test_shares_cover_all_without_overlap(jobs):
    cores = list(range(10, 15))
    parts = [sweep.share(cores, jobs, slot) for slot in range(jobs)]
    assert all(parts)
    if jobs <= len(cores):
        assert [core for part in parts for core in part] == cores
    assert sweep.share([], jobs, 0) == []
    env = [sweep.environment(2, slot, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}) for slot in (0, 1)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in env] == ["4,5", "6,7"]


# -- the queue


def queue(tmp_path, over: str, shell: str, **options):
    """A queue whose runs are shell commands; $0 is the work directory, $1 the seed, $2 the verb."""
    lines: list[str] = []

    def program(trial, root, verb):
        return ["bash", "-c", shell, str(root / trial.name), dict(trial.setting)["seed"], verb]

    made = sweep.Queue(expand(over), tmp_path, program=program, report=lines.append, pause=0.0, **options)
    return made, lines


DONE = 'mkdir -p "$0"; echo "{\\"step\\": 4000, \\"x\\": {\\"y\\": $1}}" >"$0/evaluation.json"'


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    shell = f'echo "$1" >>{tmp_path}/starts; (($1 != 1)) || {{ echo "error: too large"; exit 2; }}; '
    shell += f'(($1 != 2)) || [[ -e $0.tried ]] || {{ touch "$0.tried"; exit 75; }}; {DONE}'
    made, lines = queue(tmp_path, "seed=0,1,2,3", shell, jobs=2, retries=1)
    codes = made.run()
    assert codes == {f"vae_mixture,seed={seed}": 2 if seed == 1 else 0 for seed in range(4)}
    assert sorted((tmp_path / "starts").read_text().split()) == ["0", "1", "2", "2", "3"]
    assert any("seed=1: ended with code 2: error: too large" in line for line in lines)
    assert any("4 of 4" in line for line in lines)


def test_runs_share_the_cores_and_start_when_a_slot_is_free(tmp_path):
    shell = (
        f'echo "$1 $(taskset -pc $$ | sed "s/.*: //") $(date +%s%N)" >>{tmp_path}/log; sleep 0.2; {DONE}; '
    )
    shell += f'echo "$1 end $(date +%s%N)" >>{tmp_path}/log'
    made, _ = queue(tmp_path, "seed=0,1,2", shell, jobs=2)
    before = os.sched_getaffinity(0)
    made.run()
    assert os.sched_getaffinity(0) == before
    events = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    running = most = 0
    for event in sorted(events, key=lambda event: int(event[-1])):
        running += -1 if event[1] == "end" else 1
        most = max(most, running)
    assert most == 2
    if len(before) > 1:
        cores = {event[0]: event[1] for event in events if event[1] != "end"}
        assert cores["0"] != cores["1"]


def test_finished_runs_are_skipped_and_unevaluated_runs_are_evaluated(tmp_path):
    """A run killed between its last step and its evaluation is evaluated."""
    steps = expand("seed=0")[0].experiment().steps
    done = DONE.replace("4000", str(steps))
    shell = f'echo "$1 $2" >>{tmp_path}/starts; [[ $2 == train ]] || {{ {done}; }}'
    made, _ = queue(tmp_path, "seed=0,1", shell)
    assert set(made.run().values()) == {0}
    again, lines = queue(tmp_path, "seed=0,1", shell)
    assert set(again.run().values()) == {0}
    assert (tmp_path / "starts").read_text().splitlines() == [
        "0 train",
        "0 evaluate",
        "1 train",
        "1 evaluate",
    ]
    assert lines == [f"vae_mixture,seed={seed}: already finished" for seed in (0, 1)]


def test_stop_reaches_all_runs_and_starts_none(tmp_path):
    shell = 'last=0.$1; end() { sleep $last; touch "$0.saved"; exit 143; }; trap end TERM; touch "$0.begun"; '
    shell += "sleep 100 & wait $!"
    made, _ = queue(tmp_path, "seed=1,3,5", shell, jobs=2, retries=5)

    def stop():
        while len(list(tmp_path.glob("*.begun"))) < 2:
            time.sleep(0.02)
        made.stop(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    codes = made.run()
    thread.join()
    assert list(codes.values()) == [143, 143]
    assert len(list(tmp_path.glob("*.saved"))) == len(list(tmp_path.glob("*.begun"))) == 2


# -- the summary


def evaluated(root: Path, trial: variations.Trial, **numbers):
    (root / trial.name).mkdir(parents=True)
    (root / trial.name / "evaluation.json").write_text(json.dumps(numbers))


def test_mean_and_std_match_hand_computation(tmp_path):
    trials = expand("steps=5,6", "seed=0,1,2")
    for trial, value in zip(trials[:4], [1.0, 2.0, 6.0, 4.0], strict=True):
        evaluated(
            tmp_path, trial, step=5, collapse="none", distribution={"frechet_ratio": value, "modes": True}
        )
    summary = sweep_table.summarise(trials, tmp_path)
    assert summary["shown"] == ["distribution.frechet_ratio"]
    five, six = summary["rows"]
    assert (five["setting"], five["seeds"], five["of"]) == ({"steps": "5"}, 3, 3)
    number = five["numbers"]["distribution.frechet_ratio"]
    assert number["mean"] == pytest.approx(3.0)
    assert number["std"] == pytest.approx(7.0**0.5)  # (4 + 1 + 9) / 2
    assert six["numbers"]["distribution.frechet_ratio"] == {"mean": 4.0, "std": None, "values": [4.0]}
    lines = sweep_table.markdown(summary).splitlines()
    assert lines[0] == "| steps | seeds | frechet_ratio |"
    assert lines[2:] == ["| 5 | 3 | 3.0 ± 2.6 |", "| 6 | 1 of 3 | 4 |"]
    paths = sweep_table.write_summary(summary, tmp_path)
    assert json.loads(paths[0].read_text()) == summary
    assert paths[1].read_text().splitlines() == lines


def test_numbers_are_selected_by_name(tmp_path):
    trials = expand("seed=0", configs=["a", "b"])
    evaluated(tmp_path, trials[0], step=5, likelihood={"nats": -2.0})
    with pytest.raises(UserError, match="did you mean 'likelihood\\.nats'"):
        sweep_table.summarise(trials, tmp_path, ["likelihood.nat"])
    summary = sweep_table.summarise(trials, tmp_path, ["likelihood.nats", "step"])
    table = sweep_table.markdown(summary).splitlines()
    assert table[0] == "| config | seeds | nats | step |"
    assert table[2:] == ["| a | 1 | -2 | 5 |", "| b | 0 of 1 |  |  |"]
    (tmp_path / trials[1].name).mkdir()
    (tmp_path / trials[1].name / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        sweep_table.summarise(trials, tmp_path)


# -- the program


def program(*words: str, **options) -> subprocess.CompletedProcess:
    env = os.environ | {"GENJAX_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | quick.environment(1)
    env["XLA_FLAGS"] = quick.XLA_FLAGS
    command = [str(ROOT / "launch" / "local.sh"), "sweep", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=env, **options)


def test_a_runs_arguments():
    (_, trial) = expand("seed=0,1", configs=["dir/f.py:v"], common=[("steps", "7")])
    words = ["--config=dir/f.py:v", "--workdir=/a b/f-v,seed=1", "--config.steps=7", "--config.seed=1"]
    assert sweep.arguments(trial, Path("/a b")) == words
    assert sweep.arguments(trial, Path("/a b"), "evaluate") == ["--workdir=/a b/f-v,seed=1"]


@pytest.mark.slow
def test_a_dry_run_prints_the_commands(tmp_path):
    words = ["--config=vae_mixture", "--over=seed=0,1", "--config.steps=7", "--dry_run", "--index=1"]
    (line,) = program(*words, f"--workdir={tmp_path}/a b").stdout.splitlines()
    assert shlex.split(line)[1:] == [
        "-P",
        "-m",
        "experiments",
        "train",
        "--config=vae_mixture",
        f"--workdir={tmp_path}/a b/vae_mixture,seed=1",
        "--config.steps=7",
        "--config.seed=1",
    ]


@pytest.mark.slow
def test_a_sweep_of_two_seeds(tmp_path):
    """Then the same command again with a third run that cannot start."""
    (tmp_path / "tiny.py").write_text(TINY)
    words = [f"--config={tmp_path}/tiny.py", "--over=seed=0,1", f"--workdir={tmp_path}/runs", "--jobs=2"]
    done = program(*words)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    (row,) = summary["rows"]
    number = row["numbers"]["likelihood.bits_per_dim"]
    reports = [tmp_path / "runs" / f"tiny,seed={seed}" / "evaluation.json" for seed in (0, 1)]
    values = [json.loads(path.read_text())["likelihood"]["bits_per_dim"] for path in reports]
    assert number["values"] == values
    assert values[0] != values[1]
    assert number["mean"] == pytest.approx(sum(values) / 2)
    assert number["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert "| tiny" in done.stdout or "seeds" in done.stdout
    stamps = [path.stat().st_mtime_ns for path in reports]
    (tmp_path / "runs" / "tiny,seed=2").mkdir()
    (tmp_path / "runs" / "tiny,seed=2" / "mine.txt").write_text("not a run")
    words[1] = "--over=seed=0,1,2"
    again = program(*words)
    assert again.returncode == 2
    assert "1 of 3 runs failed: tiny,seed=2" in again.stderr
    assert again.stdout.count("already finished") == 2
    assert [path.stat().st_mtime_ns for path in reports] == stamps
