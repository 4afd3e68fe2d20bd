"""Parts of the speed measurements; the program is `experiments/benchmark.py`."""
