"""Helpers of the launcher tests: fake programs, and records of their arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
NAMES = ("local", "ssh", "slurm", "tpu", "kubernetes", "skypilot")
LEAST = {  # the minimal options of each launcher
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
SLEEP = "sleep 100 >/dev/null 2>&1 & wait $!"  # orphaned, it keeps no pipe open
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


def counting(path: Path, codes: list[int]) -> Path:
    """A program that exits with the next of `codes` at each start."""
    text = f"echo >>{path}.starts\nset -- {' '.join(map(str, codes))}\nshift $(($(wc -l <{path}.starts) - 1))\nexit $1"
    return program(path, text)


def starts(path: Path) -> int:
    return len(Path(f"{path}.starts").read_text().splitlines())
