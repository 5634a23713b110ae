"""What survives the process: counts over all its runs, the axis, unfinished tasks; saved and taken over."""

from __future__ import annotations

from pathlib import Path

from .checkpoints import Checkpoint, CheckpointStore, RunRecord
from .log import EcsLog
from .loop import CycleLoop
from .tasks import TaskExecutor


class ProcessState:
    """The state of the process, saved in checkpoints and taken over from the last one."""

    def __init__(self, directory: Path, process_name: str, loop: CycleLoop, tasks: TaskExecutor, log: EcsLog) -> None:
        self.recovered_from: Checkpoint | None = None
        self.recovered_cycles = 0
        self._process_name = process_name
        self._loop = loop
        self._tasks = tasks
        self._log = log
        self._checkpoints = CheckpointStore(directory, process_name)
        self._run_record = RunRecord(directory, process_name)
        self._recovered_misses = 0
        self._recovered_tasks = {"started": 0, "completed": 0, "failed": 0}

    @property
    def start_count(self) -> int:
        """Starts over the life of the host, this one included."""
        return self._run_record.start_count

    @property
    def restart_count(self) -> int:
        """Starts after an unclean end, over the life of the host."""
        return self._run_record.restart_count

    @property
    def last_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint that this process wrote."""
        return self._checkpoints.last

    @property
    def cycles_total(self) -> int:
        """Cycles over all runs."""
        return self.recovered_cycles + self._loop.cycles

    def task_counts(self) -> dict[str, int]:
        """Return tasks started, completed and failed over all runs."""
        before = self._recovered_tasks
        return {
            "started": before["started"] + self._tasks.started,
            "completed": before["completed"] + self._tasks.completed,
            "failed": before["failed"] + self._tasks.failed,
        }

    def recover(self, take_over: bool) -> None:
        """Count this start, take over the state of the last checkpoint, and write a fresh one at once."""
        self._checkpoints.remove_leftovers()
        checkpoint, problems = self._checkpoints.newest()
        for problem in problems:
            self._log.error(problem)
        state = checkpoint.state if checkpoint else {}
        problem = self._run_record.begin(int(state.get("restart_count", 0)))
        if problem:
            self._log.error(problem)
        if checkpoint is not None and take_over:
            self._take_over(checkpoint)
        # At once, so that a process killed in its first minute has something to recover from.
        self.save()

    def _take_over(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.recovered_from = checkpoint
        self.recovered_cycles = int(state.get("cycles_total", 0))
        self._recovered_misses = int(state.get("deadline_misses_total", 0))
        axis = state.get("axis", {})
        controller = self._loop.controller
        controller.position = float(axis.get("position", 0.0))
        controller.velocity = float(axis.get("velocity", 0.0))
        controller.target = float(axis.get("target", 0.0))
        tasks = state.get("tasks", {})
        for key in self._recovered_tasks:
            self._recovered_tasks[key] = int(tasks.get(key, 0))
        self._tasks.last_task_id = str(tasks.get("last_task_id", ""))
        self._log.info(
            f"Recovered from checkpoint: {checkpoint.id} ({checkpoint.path}), {self.recovered_cycles} cycles"
        )
        for task_id in state.get("active_tasks", []):
            # A task is not repeated: nobody knows how far its last action came.
            self._log.warn("Task was interrupted by a restart", fields={"mxrc.task_id": task_id})
            self._recovered_tasks["failed"] += 1

    def save(self) -> None:
        """Write a checkpoint."""
        controller = self._loop.controller
        state = {
            "active_tasks": self._tasks.active(),
            "restart_count": self.restart_count,
            "cycles_total": self.cycles_total,
            "deadline_misses_total": self._recovered_misses + self._loop.misses,
            "axis": {
                "position": controller.position,
                "velocity": controller.velocity,
                "target": controller.target,
            },
            "tasks": {
                **self.task_counts(),
                "last_task_id": self._tasks.last_task_id,
            },
        }
        self._checkpoints.save(state)

    def end(self) -> None:
        """Save the last state and note a clean stop."""
        self.save()
        self._run_record.end()
