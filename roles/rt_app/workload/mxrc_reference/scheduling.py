"""Policy, priority and cores of the threads, and threads that the process cannot live without."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from typing import Final

from .log import EcsLog
from .settings import AffinitySettings
from .system import EXIT_FAILURE, LIBC


class Threads:
    """Starts threads that the process cannot live without."""

    def __init__(self, log: EcsLog) -> None:
        self._log = log

    def start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        """Run `body` in a named thread. An error in it ends the process: systemd then starts a sound one."""

        def run() -> None:
            LIBC.name_thread(name)
            try:
                body()
            except Exception:
                self._log.write("critical", f"thread {name} failed: {traceback.format_exc()}")
                self._log.flush(1.0)
                os._exit(EXIT_FAILURE)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


class Scheduling:
    """Policy, priority and cores of the threads; what is not permitted is a warning, not an end."""

    _POLICIES: Final = {"SCHED_OTHER": os.SCHED_OTHER, "SCHED_FIFO": os.SCHED_FIFO, "SCHED_RR": os.SCHED_RR}

    def __init__(self, settings: AffinitySettings, realtime: bool, log: EcsLog) -> None:
        self._settings = settings
        self._realtime = realtime
        self._log = log
        self.memory_locked = False
        self.loop_policy = ""
        self.loop_priority = 0
        self.loop_cores: list[int] = []

    def settle_helpers(self) -> None:
        """Make the main thread, and with it all threads it starts, an ordinary one on the process's cores.

        The unit gives the whole process a real-time policy; a helper with it would delay the loop.
        Isolated cores have no load balancing: a thread stays where it is. So helpers are first put on the
        cores that the loop does not use, and are then given the full set, which is what everybody expects
        to see.
        """
        policy, priority, cores = self._effective()
        self._log.info(f"started with {policy} {priority} on cores {cores}")
        self._set_policy("SCHED_OTHER", 0)
        every_core = self._settings.cpu_cores
        if self._realtime and len(every_core) > 1:
            self._set_cores(every_core[1:])
        self._set_cores(every_core)

    def settle_loop(self) -> None:
        """Give the calling thread the configured policy; a real-time loop stays on the first core."""
        cores = self._settings.cpu_cores[:1] if self._realtime else self._settings.cpu_cores
        self._set_cores(cores)
        self._set_policy(self._settings.policy, self._settings.priority)
        self.loop_policy, self.loop_priority, self.loop_cores = self._effective()
        self._log.info(f"loop runs with {self.loop_policy} {self.loop_priority} on cores {self.loop_cores}")

    def lock_memory(self) -> None:
        """Keep all memory resident, so that the loop never waits for a page."""
        problem = LIBC.lock_memory()
        self.memory_locked = not problem
        if problem:
            self._log.warn(f"memory is not locked: {problem} (needs LimitMEMLOCK=infinity)")

    def _effective(self) -> tuple[str, int, list[int]]:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        names = {number: name for name, number in self._POLICIES.items()}
        priority = os.sched_getparam(0).sched_priority
        return names.get(policy, str(policy)), priority, sorted(os.sched_getaffinity(0))

    def _set_policy(self, name: str, priority: int) -> None:
        # An unprivileged process may keep the reset-on-fork flag but not drop it.
        reset_flag = os.sched_getscheduler(0) & os.SCHED_RESET_ON_FORK
        try:
            os.sched_setscheduler(0, self._POLICIES[name] | reset_flag, os.sched_param(priority))
        except OSError as error:
            reason = f"{error.strerror} (needs LimitRTPRIO={priority})"
            self._log.warn(f"{name} {priority} not permitted: {reason}")

    def _set_cores(self, cores: list[int]) -> None:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            self._log.warn(f"cores {cores} cannot be used: {error.strerror}")
