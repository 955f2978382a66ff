"""What a run did over time, in bounded memory."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class History(Generic[T]):
    """Of the items given, at most `capacity`, evenly spaced from the first on.

    Whenever it is full, every second item goes and from then on only every second one is taken.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: list[T] = []
        self.stride = 1
        self.given = 0

    def append(self, make: Callable[[], T]) -> None:
        """Give the next item; `make` is called only if it is kept."""
        if self.given % self.stride == 0 and len(self.items) == self.capacity:
            self.items = self.items[::2]
            self.stride *= 2
        if self.given % self.stride == 0:
            self.items.append(make())
        self.given += 1

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; `load_state_dict` takes it back."""
        return {"items": self.items, "stride": self.stride, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.items, self.stride, self.given = list(state["items"]), state["stride"], state["given"]
