"""Checkpoints that survive kills, full disks, flipped bits, renamed classes and other numbers of devices.

A directory holds one folder for each step:

    300/                 orbax's files, a nested dict of arrays; renamed into place when complete
    300/manifest.json    dtypes and shapes, and checksums of all files (see `genjax.core.checksums`); written last,
                         so that a folder without it is not a checkpoint
    300.stale/           a step that a later restore of an earlier step has superseded, or one being deleted

orbax silently restores files with flipped bits, silently casts to other dtypes, and fails in many ways on missing
files. So every file is verified against the manifest, and names, shapes and dtypes against the template, before orbax
reads them.

Names are paths through the state and contain no class names: see `genjax.training.checkpoint_arrays`.
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
    """Shortens a message of orbax or of the system to one line."""
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Permission denied"):
        if known.lower() in text.lower():
            return known[0].lower() + known[1:]
    return f"{type(error).__name__}: {text[:200]}"


def steps_in(directory: Path) -> list[int]:
    """All steps that have a folder in a directory of checkpoints, ascending."""
    names = os.listdir(directory) if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


class _Quiet(logging.Filter):
    """Drops orbax's logged tracebacks of failed saves, which `Checkpoints` raises as one-line errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)


class Checkpoints:
    """The checkpoints of one directory; a context manager that waits for the last save.

    Saving happens in the background. Its failure raises `UserError` at the next `save`, `wait`, `restore`
    or at the end of the `with` block, whichever comes first.

    In a run of several processes every process calls every method, on a shared file system; process 0 verifies,
    writes manifests and deletes.
    """

    def __init__(self, directory: str | os.PathLike[str], keep_last: int = 2, keep_every: int = 0):
        """Opens a directory, without writing or deleting anything before the first save.

        Args:
            directory: created by the first save if it is missing.
            keep_last: number of newest checkpoints that are kept, at least 1.
            keep_every: checkpoints of steps divisible by this are never deleted; 0 for none.

        Raises:
            UserError: a number is out of range.
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
        self._current: int | None = None  # the last step that this object saved or restored
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
            _log.warning("%s", failed)  # the exception in flight takes precedence
        finally:
            self._background.shutdown()
            self._orbax.close()
            logging.getLogger("absl").removeFilter(self._quiet)

    def steps(self) -> list[int]:
        """All steps that have a folder, ascending; `restore` checks whether they are intact."""
        return steps_in(self.directory)

    def latest(self) -> int | None:
        """The newest of `steps`, or None."""
        return max(self.steps(), default=None)

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    # Saving.

    def save(self, step: int, state: PyTree) -> None:
        """Copies the state off the devices and saves it in the background.

        Existing folders of this and later steps date from before an earlier step was restored (explicitly, or because
        later checkpoints were damaged). They are moved aside, and deleted once this run has saved their step or a
        later one. The step saved or restored last is not saved a second time.

        Args:
            step: number of steps taken, >= 0.
            state: pytree of arrays (jax, sharded in any way, or numpy), typed keys and numbers.

        Raises:
            UserError: this save cannot start, or the previous one has failed.
        """
        self.wait()
        if step == self._current:
            return
        named = checkpoint_arrays.named(state)
        arrays = {name: checkpoint_arrays.kind(leaf) for name, leaf in named.items()}
        tree = checkpoint_arrays.for_orbax(named)
        try:
            if jax.process_index() == 0:
                self._prepare_folder(step, sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
            self._orbax.save(self._folder(step), args=ocp.args.PyTreeSave(tree))
        except (OSError, ValueError) as error:
            raise self._failure(step, error) from error
        self._saving = step, self._background.submit(self._finish, step, arrays)

    def _prepare_folder(self, step: int, size: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._cleaned:
            self._remove_partial()
            self._cleaned = True
        for existing in self.steps():
            if existing >= step:
                self._move_aside(existing)
        if jax.process_count() == 1 and shutil.disk_usage(self.directory).free < size:
            raise OSError(f"No space left on device for {size / 1e6:.0f} MB")

    def _finish(self, step: int, arrays: Mapping[str, Any]) -> None:
        """In the background: waits for orbax, writes the manifest, and only then deletes older steps."""
        self._orbax.wait_until_finished()
        if jax.process_index() != 0:
            return
        checksums.write(self._folder(step), step, arrays)
        try:
            self._delete_old(step)
        except OSError as error:
            _log.warning("old checkpoints in %s were not deleted: %s", self.directory, _reason(error))

    def wait(self) -> None:
        """Waits until a save in the background is complete.

        Raises:
            UserError: it has failed; the message gives the reason and the last good checkpoint.
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
        """Removes the temporary folders of saves that were killed or have failed."""
        for folder in self.directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _move_aside(self, step: int) -> None:
        aside = self.directory / f"{step}.stale"
        shutil.rmtree(aside, ignore_errors=True)
        self._folder(step).rename(aside)

    def _delete_old(self, saved: int) -> None:
        complete = [s for s in self.steps() if (self._folder(s) / checksums.NAME).exists()]
        kept = {s for s in complete if self._keep_every and s % self._keep_every == 0}
        for step in complete[: -self._keep_last]:
            if step not in kept:
                self._move_aside(step)
        for aside in self.directory.glob("*.stale"):
            if aside.stem.isdecimal() and int(aside.stem) <= saved:
                shutil.rmtree(aside)

    # Restoring.

    def restore(self, template: PyTree, step: int | None = None, partial: bool = False) -> tuple[int, PyTree]:
        """Restores the newest intact checkpoint, or the one of a given step.

        Damaged checkpoints are skipped with a warning and not deleted.

        Args:
            template: pytree like the state, of arrays or `jax.ShapeDtypeStruct`s. Each array is placed
                on the sharding of its template, on the first device where that has none; numpy arrays
                and numbers are restored as such.
            step: which checkpoint; None for the newest intact one.
            partial: whether the checkpoint may hold arrays that the template lacks.

        Returns:
            The step, and the state in the structure of `template`.

        Raises:
            UserError: there is no intact checkpoint, or it differs from the template in a name, shape or dtype.
        """
        self.wait()
        found = self._newest_intact([step] if step is not None else self.steps()[::-1])
        named = checkpoint_arrays.named(template)
        there = checksums.read(self._folder(found))["arrays"]
        stored = checkpoint_arrays.stored_names(named, there)
        current = {old: name for name, old in stored.items()}
        wrong = checkpoint_arrays.differences(
            {current.get(name, name): kind for name, kind in there.items()},
            {name: checkpoint_arrays.kind(leaf) for name, leaf in named.items()},
            partial,
        )
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise UserError(f"checkpoint {self._folder(found)} does not fit: {'; '.join(wrong[:3])}{more}")
        pairs = {
            stored[name]: checkpoint_arrays.request(leaf)
            for name, leaf in named.items()
            if np.prod(np.shape(leaf)) > 0
        }
        item, how = (checkpoint_arrays.nest({name: pair[i] for name, pair in pairs.items()}) for i in (0, 1))
        request = ocp.args.PyTreeRestore(item, restore_args=how, partial_restore=True)
        tree = self._orbax.restore(self._folder(found), args=request) if pairs else {}
        self._current = found
        leaves = [checkpoint_arrays.restored(tree, stored[name], leaf) for name, leaf in named.items()]
        return found, jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _newest_intact(self, candidates: list[int]) -> int:
        """The first intact step of `candidates`, which process 0 determines for all processes."""
        found, faults = -1, [] if jax.process_index() == 0 else ["see the message of process 0"]
        for step in candidates if jax.process_index() == 0 else []:
            try:
                checksums.verify(self._folder(step))
            except checksums.ChecksumError as fault:
                faults.append(f"{step}: {fault}")
                _log.warning("checkpoint %s is damaged and skipped: %s", self._folder(step), fault)
                continue
            found = step
            break
        found = multihost.broadcast(found)
        if found < 0:
            what = (
                f"no intact checkpoint in {self.directory}"
                if faults
                else f"no checkpoint in {self.directory}"
            )
            raise UserError(f"{what}{': ' if faults else ''}{'; '.join(faults)}")
        return found
