"""The periodic loop and what it notes about itself.

The only room with a real-time policy: what runs here does no I/O and takes no lock.
"""

from __future__ import annotations

import ctypes
import time
from typing import Final, NamedTuple

from .faults import Faults
from .system import LIBC, NS_PER_S, NS_PER_US, Timespec

#: The loop waits at least 1/4 of the time it ran, so 20 % of its core stay free whatever happens. Where
#: kernel.sched_rt_runtime_us is -1, nothing else would stop a loop that is too slow for its period.
BUSY_PER_IDLE: Final = 4


class Distribution:
    """Counts of durations: exact to 1 us below 1024 us, by powers of two above."""

    LINEAR_US: Final = 1024
    #: Upper bounds shown in a Prometheus histogram, in microseconds. All are edges of the counts.
    EDGES_US: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1024, 2048, 4096, 8192, 16384, 65536, 262144)
    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * (self.LINEAR_US + 65)

    @classmethod
    def index(cls, duration_us: int) -> int:
        """Return which count a duration belongs to."""
        return duration_us if duration_us < cls.LINEAR_US else cls.LINEAR_US + duration_us.bit_length()

    def add(self, other: Distribution) -> None:
        """Add the counts of another distribution."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def total(self) -> int:
        """Return how many durations were counted."""
        return sum(self.counts)

    def below(self, edge_us: int) -> int:
        """Return how many durations were shorter than an edge."""
        return sum(self.counts[: self.index(edge_us)])

    def quantile(self, share: float) -> int:
        """Return the duration in us that `share` of all stay below; rounded up above 1024 us."""
        wanted = share * self.total()
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return index if index < self.LINEAR_US else (1 << (index - self.LINEAR_US)) - 1
        return 0


class Window:
    """What the loop did in some seconds. Written by the loop only."""

    __slots__ = ("latency", "latency_max_us", "misses", "scheduled")

    def __init__(self) -> None:
        self.latency = Distribution()
        self.latency_max_us = 0
        self.misses = 0
        self.scheduled = 0


class Recent(NamedTuple):
    """The last 30 to 60 seconds of the loop."""

    jitter_p99_us: int
    jitter_max_us: int
    miss_rate: float


class Controller:
    """Stand-in for the application's control law: one axis that follows a target."""

    __slots__ = ("position", "target", "velocity")

    def __init__(self) -> None:
        self.position = 0.0
        self.velocity = 0.0
        self.target = 0.0

    def step(self) -> None:
        """Advance by one cycle."""
        self.velocity = 0.9 * self.velocity + 0.005 * (self.target - self.position)
        self.position += self.velocity


class CycleLoop:
    """The periodic loop, on absolute deadlines of the monotonic clock.

    Cycle k is released at t0 + k * period. Its latency is how late it starts, its deadline how late it may be
    done. A cycle that is done too late is a miss; releases that passed meanwhile are skipped, and each is a
    miss too: the loop never tries to catch up.

    Other threads only read the counters, single integers that need no lock.
    """

    def __init__(self, period_us: int, deadline_us: int, controller: Controller, faults: Faults) -> None:
        self.period_ns = period_us * NS_PER_US
        self.controller = controller
        self.cycles = 0
        self.misses = 0
        self.busy_ns = 0
        self.latency_sum_us = 0
        self.last_done_ns = time.monotonic_ns()
        self.cycle_time = Distribution()
        #: Set to have one cycle noted in `cycle_sample` as (number, start, end), for a span.
        self.sample_wanted = False
        self.cycle_sample: tuple[int, int, int] | None = None
        self._deadline_ns = deadline_us * NS_PER_US or self.period_ns
        self._faults = faults
        self._running = True
        self._window = Window()
        self._previous_window = Window()
        self._past_latency = Distribution()

    def stop(self) -> None:
        """Let the loop end after its current cycle."""
        self._running = False
        self._faults.release()

    def run(self) -> None:
        """Run cycles until stopped. Every line in the loop counts: this is the hot path."""
        period_ns = self.period_ns
        deadline_ns = self._deadline_ns
        smallest_idle_ns = period_ns // 10
        linear_us = Distribution.LINEAR_US
        timespec = Timespec()
        timespec_address = ctypes.addressof(timespec)
        sleep = LIBC.clock_nanosleep
        clock, absolute = LIBC.CLOCK_MONOTONIC, LIBC.TIMER_ABSTIME
        now = time.monotonic_ns
        faults = self._faults
        step = self.controller.step
        cycle_time_counts = self.cycle_time.counts

        release = wake_at = now() + period_ns
        while self._running:
            timespec.tv_sec = wake_at // NS_PER_S
            timespec.tv_nsec = wake_at % NS_PER_S
            if sleep(clock, absolute, timespec_address, None):
                # Only a bad argument or a signal ends it early. Never spin, whatever the reason.
                time.sleep(period_ns / NS_PER_S)
            start = now()
            latency_us = (start - release) // 1000
            window = self._window
            # Distribution.index(), without the call.
            window.latency.counts[latency_us if latency_us < linear_us else linear_us + latency_us.bit_length()] += 1
            self.latency_sum_us += latency_us
            if latency_us > window.latency_max_us:
                window.latency_max_us = latency_us

            step()
            if faults.kind is not None:
                faults.apply(period_ns)

            done = now()
            busy_ns = done - start
            busy_us = busy_ns // 1000
            cycle_time_counts[busy_us if busy_us < linear_us else linear_us + busy_us.bit_length()] += 1
            self.busy_ns += busy_ns
            self.last_done_ns = done
            self.cycles += 1
            window.scheduled += 1
            if done - release > deadline_ns:
                self.misses += 1
                window.misses += 1
            if self.sample_wanted:
                self.sample_wanted = False
                self.cycle_sample = (self.cycles, start, done)

            release += period_ns
            wake_at = release
            # The wait in every round that keeps this thread from taking the core for itself.
            earliest = done + max(smallest_idle_ns, busy_ns // BUSY_PER_IDLE)
            if earliest > release:
                skipped = (earliest - release) // period_ns
                release += skipped * period_ns
                wake_at = earliest
                self.misses += skipped
                window.misses += skipped
                window.scheduled += skipped

    def turn_window(self) -> None:
        """Begin a new window; called every WINDOW_S seconds by one thread."""
        # The loop may hold on to its window until the end of a cycle: a window is summed up one turn later.
        self._past_latency.add(self._previous_window.latency)
        self._previous_window = self._window
        self._window = Window()

    def recent(self) -> Recent:
        """Return jitter and miss rate of the current and the previous window."""
        windows = (self._previous_window, self._window)
        latency = Distribution()
        for window in windows:
            latency.add(window.latency)
        largest = max(window.latency_max_us for window in windows)
        scheduled = sum(window.scheduled for window in windows)
        misses = sum(window.misses for window in windows)
        return Recent(min(latency.quantile(0.99), largest), largest, misses / scheduled if scheduled else 0.0)

    def latency(self) -> Distribution:
        """Return the latencies of all cycles."""
        everything = Distribution()
        for part in (self._past_latency, self._previous_window.latency, self._window.latency):
            everything.add(part)
        return everything
