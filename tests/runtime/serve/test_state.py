from longshore_runtime.errors import EngineFailed, StoreFailed
from longshore_runtime.serve.state import State


def test_the_first_failure_stays_and_the_figures_go_on() -> None:
    state = State()
    state.update(phase="loading", step="loading weights", bytes=1, size=3)
    state.fail(StoreFailed("the bucket is gone", "look for it"))
    state.fail(EngineFailed("the engine ended"))
    state.update(phase="ready", bytes=2)
    assert state.read().as_dict() == {
        "phase": "failed",
        "step": "loading weights",
        "bytes": 2,
        "size": 3,
        "verdict": None,
        "error": "the bucket is gone",
        "hint": "look for it",
    }
