"""Lines of progress, printed once however many processes run."""

import jax


def say(line: str) -> None:
    """Prints one line of progress, on the first process only."""
    if jax.process_index() == 0:
        print(line, flush=True)
