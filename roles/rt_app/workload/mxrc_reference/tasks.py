"""Tasks that move the axis, and the event bus that tells of their actions."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from .log import EcsLog
from .loop import CycleLoop
from .spans import Attributes, Span, SpanContext, Tracer, parse_traceparent
from .system import NS_PER_S
from .web import BadRequestError, Request, Response, json_response, parse_json_object, refuse_unknown_keys

#: What an event says about its action.
Payload = Mapping[str, str | float]


class Event(NamedTuple):
    """What travels over the event bus. The span context goes with it, as the header of a message would."""

    topic: str
    context: SpanContext
    task_id: str
    payload: Payload


class EventBus:
    """Publish and subscribe inside the process; publishing is a span of its own."""

    def __init__(self, tracer: Tracer, enabled: bool) -> None:
        self.published = 0
        self._tracer = tracer
        self._enabled = enabled
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have all events handed to a function."""
        self._subscribers.append(subscriber)

    def publish(self, topic: str, parent: SpanContext, task_id: str, payload: Payload) -> None:
        """Hand an event to all subscribers."""
        attributes = {"messaging.destination.name": topic, "task.id": task_id}
        with self._tracer.span("eventbus.publish", parent, attributes, Span.PRODUCER, self._enabled) as span:
            self.published += 1
            for subscriber in self._subscribers:
                subscriber(Event(topic, span.context, task_id, payload))


class ActionTimeoutError(Exception):
    """The loop did not take a command in time."""


class TaskRejectedError(Exception):
    """A task that cannot be accepted now; `status` is the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Task(NamedTuple):
    """A task that was accepted; its span began at that moment."""

    task_id: str
    mode: str
    span: Span


class TaskExecutor:
    """Runs tasks one after the other: a task is sequences, these are actions, and each moves the axis."""

    #: How often a task runs its sequence, by mode.
    REPETITIONS: Final = {"once": 1, "periodic": 3}
    #: (name, target of the axis) of the actions in a sequence.
    ACTIONS: Final = (("move_out", 1.0), ("move_back", 0.0))
    QUEUE_LIMIT: Final = 2048
    ACTION_TIMEOUT_S: Final = 1.0

    def __init__(self, loop: CycleLoop, bus: EventBus, tracer: Tracer, enabled: bool, log: EcsLog) -> None:
        self.started = 0
        self.completed = 0
        self.failed = 0
        self.last_task_id = ""
        self._loop = loop
        self._bus = bus
        self._tracer = tracer
        self._enabled = enabled
        self._log = log
        self._lock = threading.Lock()
        self._active: dict[str, Task] = {}
        self._queue: queue.SimpleQueue[Task] = queue.SimpleQueue()

    def submit(self, task_id: str, mode: str, parent: SpanContext | None) -> SpanContext:
        """Accept a task; return the context of its span.

        Raises:
            TaskRejectedError: the same task still runs, or too many tasks wait.
        """
        with self._lock:
            if task_id in self._active:
                raise TaskRejectedError(409, f"task {task_id} is running")
            if len(self._active) >= self.QUEUE_LIMIT:
                raise TaskRejectedError(503, f"{self.QUEUE_LIMIT} tasks are waiting")
            attributes = {"task.id": task_id, "mxrc.task_mode": mode}
            span = self._tracer.span("task.execute", parent, attributes, Span.SERVER, self._enabled)
            task = Task(task_id, mode, span)
            self._active[task_id] = task
            self.started += 1
            self.last_task_id = task_id
        self._queue.put(task)
        return span.context

    def active(self) -> list[str]:
        """Return the ids of tasks that run or wait."""
        with self._lock:
            return list(self._active)

    def run(self) -> None:
        """Run tasks for ever; the body of the executor thread."""
        while True:
            task = self._queue.get()
            context = task.span.context
            fields = {"mxrc.task_id": task.task_id}
            self._log.info("Task execution started", context, fields)
            try:
                with task.span:
                    for number in range(1, self.REPETITIONS[task.mode] + 1):
                        self._run_sequence(task, number)
            except ActionTimeoutError as error:
                self.failed += 1
                self._log.error(f"Task execution failed: {error}", context, fields)
            else:
                self.completed += 1
                self._log.info("Task execution completed", context, fields)
            with self._lock:
                del self._active[task.task_id]

    def _run_sequence(self, task: Task, number: int) -> None:
        attributes: Attributes = {"task.id": task.task_id, "mxrc.sequence": number}
        with self._tracer.span("sequence.run", task.span.context, attributes, enabled=self._enabled) as span:
            for name, target in self.ACTIONS:
                self._execute_action(task, name, target, span.context)

    def _execute_action(self, task: Task, name: str, target: float, parent: SpanContext) -> None:
        attributes = {"task.id": task.task_id, "mxrc.action": name}
        with self._tracer.span("action.execute", parent, attributes, enabled=self._enabled) as span:
            before = self._loop.cycles
            self._loop.controller.target = target
            give_up = time.monotonic() + self.ACTION_TIMEOUT_S
            # A cycle that had already begun may not have seen the target; the second one has.
            while self._loop.cycles < before + 2:
                if time.monotonic() > give_up:
                    raise ActionTimeoutError(f"Action timeout: {name}")
                time.sleep(self._loop.period_ns / NS_PER_S)
            payload: Payload = {"action": name, "target": target}
            self._bus.publish("action.completed", span.context, task.task_id, payload)


class TaskRoute:
    """POST /api/v1/task/start: takes a task, below the caller's span when there is one."""

    _TASK_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

    def __init__(self, tasks: TaskExecutor) -> None:
        self._tasks = tasks

    def post(self, request: Request) -> Response:
        """Accept a task or say why not."""
        try:
            task_id, mode = self._read(request.body)
        except BadRequestError as error:
            return json_response(400, {"error": "Bad Request", "reason": str(error)})
        parent = parse_traceparent(request.headers.get("traceparent"), request.headers.get("tracestate"))
        try:
            context = self._tasks.submit(task_id, mode, parent)
        except TaskRejectedError as error:
            return json_response(error.status, {"error": "Rejected", "reason": str(error)})
        document = {
            "status": "accepted",
            "task_id": task_id,
            "mode": mode,
            "trace_id": context.trace_id,
            "sampled": context.sampled,
        }
        return json_response(202, document, traceparent=context.traceparent())

    def _read(self, body: bytes) -> tuple[str, str]:
        document = parse_json_object(body)
        refuse_unknown_keys(document, ("task_id", "mode"))
        task_id, mode = document.get("task_id"), document.get("mode")
        if not isinstance(task_id, str) or not self._TASK_ID.fullmatch(task_id):
            raise BadRequestError("task_id must be 1 to 128 letters, digits and . _ : -")
        if not isinstance(mode, str) or mode.lower() not in TaskExecutor.REPETITIONS:
            raise BadRequestError(f"mode must be one of {', '.join(TaskExecutor.REPETITIONS)}")
        return task_id, mode.lower()
