import pytest

from llamakit.core.faults import fault, injected


def fail() -> None:
    raise OSError("injected")


def test_a_fault_point_does_nothing_until_a_test_sets_it():
    fault("room.moment")
    with injected("room.moment", fail):
        fault("room.other")
        with pytest.raises(OSError, match="injected"):
            fault("room.moment")
    fault("room.moment")


def test_one_action_a_point():
    with injected("room.moment", fail), pytest.raises(RuntimeError, match="already"), injected("room.moment", fail):
        pass
