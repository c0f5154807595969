"""The oldest entry makes room for a new one."""

from codingagents.supervisor.bounded import BoundedCache


def test_a_new_entry_takes_the_place_of_the_oldest_and_a_new_value_takes_none() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache["a"] = 1
    cache["b"] = 2
    cache["a"] = 3
    assert cache == {"a": 3, "b": 2}
    cache["c"] = 4
    assert cache == {"b": 2, "c": 4}
