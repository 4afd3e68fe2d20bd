"""Comparisons with other libraries, collected only by `-m peers`; they need requirements-peers.txt."""


def pytest_ignore_collect(collection_path, config):
    if collection_path.suffix == ".py" and "peers" not in config.getoption("markexpr"):
        return True
    return None
