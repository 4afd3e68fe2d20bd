"""Progress messages, printed by the first process only."""

import jax


def say(line: str) -> None:
    """Prints one line of progress, on process 0 only."""
    if jax.process_index() == 0:
        print(line, flush=True)
