"""The recommendations of the last minutes, with their lowest and highest at hand.

The controller keeps a list and walks through it in every sync. A new recommendation takes the place of the last one
in the list that has outlived every window, or is appended. What has outlived its window is left otherwise, and counts
again if a patch of the spec makes the window longer. Here the same list is kept, and two queues in which every entry
is more extreme than all that came after it, so that a sync costs the same however long the windows are.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush


class Recommendations:
    """The list of one HPA, and its extremes within the two stabilization windows."""

    __slots__ = ("_down_s", "_highest", "_inclusive", "_longest_s", "_lowest", "_outlived", "_slots", "_up_s", "_young")

    def __init__(self) -> None:
        """Start empty, with no window."""
        self._slots: list[tuple[float, int]] = []
        self.resize(up_s=0.0, down_s=0.0, inclusive=False)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever stored."""
        return not self._slots

    def resize(self, *, up_s: float, down_s: float, inclusive: bool) -> None:
        """Set the windows, in seconds.

        Args:
            up_s: of the lowest.
            down_s: of the highest.
            inclusive: whether a recommendation exactly as old as the window still counts.
        """
        self._up_s = up_s
        self._down_s = down_s
        self._longest_s = max(up_s, down_s)
        self._inclusive = inclusive
        self._lowest: deque[tuple[float, int]] = deque()
        self._highest: deque[tuple[float, int]] = deque()
        # Places in the list, from the oldest; and, negative, so that the last comes first, those that are free.
        self._young: deque[int] = deque()
        self._outlived: list[int] = []
        for place in sorted(range(len(self._slots)), key=self._slots.__getitem__):
            self._young.append(place)
            self._queue(self._slots[place])

    def extremes(self, now_s: float, desired: int) -> tuple[int, int]:
        """Return the lowest within the one window and the highest within the other, `desired` included."""
        lowest, highest = desired, desired
        queue, cutoff_s = self._highest, now_s - self._down_s
        while queue and (queue[0][0] < cutoff_s or (queue[0][0] == cutoff_s and not self._inclusive)):
            queue.popleft()
        if queue and queue[0][1] > highest:
            highest = queue[0][1]
        if self._up_s:
            queue, cutoff_s = self._lowest, now_s - self._up_s
            while queue and queue[0][0] <= cutoff_s:
                queue.popleft()
            if queue and queue[0][1] < lowest:
                lowest = queue[0][1]
        return lowest, highest

    def store(self, now_s: float, recommendation: int) -> None:
        """Add a recommendation."""
        slots, young, outlived = self._slots, self._young, self._outlived
        entry = (now_s, recommendation)
        cutoff_s = now_s - self._longest_s
        while young and slots[young[0]][0] < cutoff_s:
            heappush(outlived, -young.popleft())
        if outlived:
            place = -heappop(outlived)
            slots[place] = entry
        else:
            place = len(slots)
            slots.append(entry)
        young.append(place)
        self._queue(entry)

    def _queue(self, entry: tuple[float, int]) -> None:
        recommendation = entry[1]
        queue = self._highest
        while queue and queue[-1][1] <= recommendation:
            queue.pop()
        queue.append(entry)
        if self._up_s:
            queue = self._lowest
            while queue and queue[-1][1] >= recommendation:
                queue.pop()
            queue.append(entry)
