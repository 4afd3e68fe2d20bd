"""Checkpoints which survive kills, full disks, flipped bits, renamed classes and another number of devices.

A directory holds one folder for each step:

    300/                 what orbax wrote, as nested dicts of names -> arrays; renamed into place when complete
    300/manifest.json    dtypes and shapes, and a sum of every file (see `genjax.core.checksums`); written last,
                         so that a folder without it is no checkpoint
    300.stale/           a step of a history that was left behind, or one being deleted

orbax restores a file with a flipped bit without a word, casts to another dtype without a word, and fails
in many ways on a missing file. So nothing is handed to it before the manifest has been verified against
every file, and names, shapes and dtypes against the template.

Names are paths through the state without any class's name: see `genjax.training.checkpoint_arrays`.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from genjax.core import checksums
from genjax.core.errors import UserError
from genjax.core.types import PyTree
from genjax.parallel import multihost
from genjax.training import checkpoint_arrays

_log = logging.getLogger(__name__)


def _reason(error: BaseException) -> str:
    """One short line for what orbax or the system say in many."""
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Permission denied"):
        if known.lower() in text.lower():
            return known[0].lower() + known[1:]
    return f"{type(error).__name__}: {text[:200]}"


class _Quiet(logging.Filter):
    """Drops orbax's tracebacks of failed saves, which `Checkpoints` reports as errors of one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)


class Checkpoints:
    """The checkpoints of one directory; a context manager that waits for the last save.

    Saving happens in the background. Its failure raises `UserError` at the next `save`, `wait`, `restore`
    or at the end of the `with` block, whichever comes first.

    In a run of several processes each calls each method, on one shared file system; process 0 verifies,
    writes manifests and deletes.
    """

    def __init__(self, directory: str | os.PathLike[str], keep_last: int = 2, keep_every: int = 0):
        """Opens a directory; nothing is written or deleted before the first save.

        Args:
            directory: made if missing.
            keep_last: how many of the newest checkpoints are kept.
            keep_every: those of steps divisible by this are kept for ever; 0 is none.
        """
        if keep_last < 1 or keep_every < 0:
            raise UserError(
                f"keep_last must be at least 1, keep_every at least 0, got {keep_last=}, {keep_every=}"
            )
        self.directory = Path(directory).absolute()
        self._keep_last, self._keep_every = keep_last, keep_every
        self._orbax = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(),
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        )
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, Future[None]] | None = None
        self._current: int | None = None  # the step that this object saved or restored last
        self._cleaned = False
        self._quiet = _Quiet()
        logging.getLogger("absl").addFilter(self._quiet)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except UserError as failed:
            if error is None:
                raise
            _log.warning("%s", failed)  # the error under way is the one to show
        finally:
            self._background.shutdown()
            self._orbax.close()
            logging.getLogger("absl").removeFilter(self._quiet)

    def steps(self) -> list[int]:
        """All steps that have a folder, ascending; whether they are intact, `restore` finds out."""
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal())

    def latest(self) -> int | None:
        """The newest of `steps`; None if there is none."""
        return max(self.steps(), default=None)

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    # Saving.

    def save(self, step: int, state: PyTree) -> None:
        """Copies the state off the devices and saves it in the background.

        Folders of this and of later steps were left behind by a return to an earlier one (by an explicit
        `restore`, or past a damaged checkpoint). They are moved aside, and deleted once this run has saved
        their step or a later one. The step saved or restored last is not saved a second time.

        Args:
            step: number of steps taken, >= 0.
            state: pytree of arrays (jax, sharded in any way, or numpy), typed keys and numbers.

        Raises:
            UserError: this save cannot begin, or the one before has failed.
        """
        self.wait()
        if step == self._current:
            return
        named = checkpoint_arrays.named(state)
        arrays = {name: checkpoint_arrays.kind(leaf) for name, leaf in named.items()}
        tree = checkpoint_arrays.for_orbax(named)
        try:
            if jax.process_index() == 0:
                self._make_room(step, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            self._orbax.save(self._folder(step), args=ocp.args.PyTreeSave(tree))
        except (OSError, ValueError) as error:
            raise self._failure(step, error) from error
        self._saving = step, self._background.submit(self._finish, step, arrays)

    def _make_room(self, step: int, size: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._cleaned:
            self._remove_partial()
            self._cleaned = True
        for left in self.steps():
            if left >= step:
                self._retire(left)
        if jax.process_count() == 1 and shutil.disk_usage(self.directory).free < size:
            raise OSError(f"No space left on device for {size / 1e6:.0f} MB")

    def _finish(self, step: int, arrays: Mapping[str, Any]) -> None:
        """In the background: waits for orbax, seals the step, and only then deletes older ones."""
        self._orbax.wait_until_finished()
        if jax.process_index() != 0:
            return
        checksums.write(self._folder(step), step, arrays)
        try:
            self._forget(step)
        except OSError as error:
            _log.warning("old checkpoints in %s were not deleted: %s", self.directory, _reason(error))

    def wait(self) -> None:
        """Waits until the save under way is complete, if there is one.

        Raises:
            UserError: it has failed; says why and which checkpoint is the last good one.
        """
        if self._saving is None:
            return
        (step, future), self._saving = self._saving, None
        try:
            future.result()
        except Exception as error:
            raise self._failure(step, error) from error
        self._current = step

    def _failure(self, step: int, error: BaseException) -> UserError:
        if jax.process_index() == 0:
            self._remove_partial()
        good = [s for s in self.steps() if (self._folder(s) / checksums.NAME).exists()]
        last = f"the last good one is {good[-1]}" if good else "there is no earlier one"
        return UserError(f"{_reason(error)}: checkpoint {step} in {self.directory} was not saved; {last}")

    # Deleting.

    def _remove_partial(self) -> None:
        """Removes what orbax leaves of a save that was killed or has failed."""
        for folder in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _retire(self, step: int) -> None:
        aside = self.directory / f"{step}.stale"
        shutil.rmtree(aside, ignore_errors=True)
        self._folder(step).rename(aside)

    def _forget(self, saved: int) -> None:
        sealed = [s for s in self.steps() if (self._folder(s) / checksums.NAME).exists()]
        kept = {s for s in sealed if self._keep_every and s % self._keep_every == 0}
        for step in sealed[: -self._keep_last]:
            if step not in kept:
                self._retire(step)
        for aside in self.directory.glob("*.stale"):
            if aside.stem.isdecimal() and int(aside.stem) <= saved:
                shutil.rmtree(aside)

    # Restoring.

    def restore(self, template: PyTree, step: int | None = None, partial: bool = False) -> tuple[int, PyTree]:
        """Restores the newest intact checkpoint, or that of one step.

        A damaged checkpoint is passed over with a warning, and stays where it is.

        Args:
            template: pytree like the state, of arrays or `jax.ShapeDtypeStruct`s. Each array is placed
                on the sharding of its template, on the first device where that has none; numpy arrays
                and numbers are restored as such.
            step: which checkpoint; None is the newest that is intact.
            partial: the checkpoint may hold more than the template asks for.

        Returns:
            The step, and the state in the structure of `template`.

        Raises:
            UserError: there is no intact checkpoint, or it differs from the template in a name, shape or dtype.
        """
        self.wait()
        found = self._newest_intact([step] if step is not None else self.steps()[::-1])
        named = checkpoint_arrays.named(template)
        there = checksums.read(self._folder(found))["arrays"]
        wrong = checkpoint_arrays.differences(
            there, {name: checkpoint_arrays.kind(leaf) for name, leaf in named.items()}, partial
        )
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise UserError(f"checkpoint {self._folder(found)} does not fit: {'; '.join(wrong[:3])}{more}")
        pairs = {
            name: checkpoint_arrays.request(leaf)
            for name, leaf in named.items()
            if np.prod(np.shape(leaf)) > 0
        }
        item, how = (checkpoint_arrays.nest({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1))
        request = ocp.args.PyTreeRestore(item, restore_args=how, partial_restore=True)
        tree = self._orbax.restore(self._folder(found), args=request) if pairs else {}
        self._current = found
        leaves = [checkpoint_arrays.restored(tree, name, leaf) for name, leaf in named.items()]
        return found, jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _newest_intact(self, candidates: list[int]) -> int:
        """The first intact one of `candidates`, as process 0 sees it."""
        found, faults = -1, [] if jax.process_index() == 0 else ["process 0 says what is wrong"]
        for step in candidates if jax.process_index() == 0 else []:
            try:
                checksums.verify(self._folder(step))
            except checksums.Damaged as fault:
                faults.append(f"{step}: {fault}")
                _log.warning("checkpoint %s is passed over: %s", self._folder(step), fault)
                continue
            found = step
            break
        found = multihost.agreed(found)
        if found < 0:
            what = (
                f"no intact checkpoint in {self.directory}"
                if faults
                else f"no checkpoint in {self.directory}"
            )
            raise UserError(f"{what}{': ' if faults else ''}{'; '.join(faults)}")
        return found
