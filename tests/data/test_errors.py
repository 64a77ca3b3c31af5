from __future__ import annotations

from data.errors import SHOWN_FAULTS, DataError, Fault


def fault(n: int) -> Fault:
    return Fault("labels.json", f"annotation {n}", "nothing", "a mask", "draw one")


def test_one_fault_shows_all_its_parts() -> None:
    message = str(DataError(fault(3)))
    for part in ("labels.json", "annotation 3", "nothing", "a mask", "draw one"):
        assert part in message


def test_many_faults_are_all_kept_and_the_first_are_shown() -> None:
    error = DataError(fault(n) for n in range(SHOWN_FAULTS + 7))
    lines = str(error).splitlines()
    assert len(error.faults) == SHOWN_FAULTS + 7
    assert lines[0] == f"{SHOWN_FAULTS + 7} faults:"
    assert lines[-1].strip() == "and 7 more"
    assert len(lines) == SHOWN_FAULTS + 2


def test_what_a_loader_process_hands_on_keeps_its_text() -> None:
    """torch re-raises a worker's exception as TYPE(message)."""
    error = DataError(Fault("a.png", "image 3", "a truncated file", "a whole one", "restore it"))
    again = DataError(f"Caught DataError in DataLoader worker process 0.\n{error}")
    assert str(again).endswith(str(error))
    assert again.faults == []
