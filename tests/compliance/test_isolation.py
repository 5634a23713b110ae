"""Isolated cores belong to the real-time application alone."""

import re
from collections.abc import Collection

import pytest

from roles.host import HostConfig
from roles.rt_app.model import NON_RT_UNIT, RT_APP, RT_UNIT
from roles.rt_tuning.model import HOUSEKEEPING_GROUPS, PARTITION, RT_SLICE
from rtinfra.cpu import CpuLayout, Topology
from rtinfra.verify import expect
from rtinfra.verify.look.cpus import Cpus
from rtinfra.verify.look.interrupts import Interrupts
from rtinfra.verify.look.memory import Memory
from rtinfra.verify.look.slices import Slices
from rtinfra.verify.look.threads import SCHED_DEADLINE, SCHED_POLICIES, Thread, Threads
from rtinfra.verify.look.units import Units

# What mlockall(2) leaves out: a few pages that the kernel maps into every process (vdso, vvar).
_UNLOCKED_KB = 64
#: Kernel threads that have to be on a core, by the core they are for, and what each is there for.
_OF_A_CORE = {
    r"cpuhp/(\d+)": "takes this core up and down",
    r"migration/(\d+)": "takes programs off this core",
    r"idle_inject/(\d+)": "lets this core rest when it is too hot",
    r"ksoftirqd/(\d+)": "what an interrupt of this core leaves for later",
    r"ktimers/(\d+)": "ends timers that were started on this core",
    r"rcuc/(\d+)": "what this core has to do for the clean-up of memory (RCU)",
    r"irq_work/(\d+)": "what was asked for on this core where it could not be done at once",
    r"backlog_napi/(\d+)": "packets that were handed to this core",
    r"kworker/(\d+):.*": "work that was asked for on this core",
}
# The kernel binds these two of each NUMA node to all cores of the node, whichever are isolated, until 6.13.
_OF_A_NODE = r"(?:kswapd|kcompactd)(\d+)"
# On a real-time kernel every interrupt is handled by a thread, which goes where the interrupt goes.
_OF_AN_INTERRUPT = r"irq/(\d+)-.*"


@pytest.fixture
def foreign_tasks(threads: Threads) -> tuple[Thread, ...]:
    """Every thread of every program that is not the real-time application."""
    ours = set(threads.of(RT_UNIT))
    return tuple(task for task in threads.all if not task.is_kernel and task not in ours)


@pytest.mark.control(id="RT-10.1", severity="critical", title="The kernel isolates exactly the chosen cores")
def test_isolated(slices: Slices, layout: CpuLayout) -> None:
    # Before 6.8 the kernel shows only what is left to everybody else.
    online = layout.isolated | layout.housekeeping
    isolated = online - slices.everybody if slices.isolated is None else slices.isolated
    expect.equal(isolated, layout.isolated, "isolated cores")


@pytest.mark.control(
    id="RT-10.61", severity="critical", title="The real-time cores are a part of the computer of their own"
)
def test_partition(slices: Slices, layout: CpuLayout) -> None:
    expect.equal(slices.partition(RT_SLICE), "isolated", f"partition of {RT_SLICE}")
    expect.equal(slices.cpus(RT_SLICE), layout.isolated, f"cores of {RT_SLICE}")
    expect.equal(slices.everybody, layout.housekeeping, "cores that are left to everybody else")


@pytest.mark.control(
    id="RT-10.62", severity="critical", title="No group of programs, whoever made it, has a real-time core"
)
def test_no_group_reaches_them(slices: Slices, layout: CpuLayout) -> None:
    groups = slices.tops
    expect.at_least(len(groups), 2, "control groups")
    others = {group: cpus for group, cpus in groups.items() if group != RT_SLICE and cpus & layout.isolated}
    expect.nothing((f"{group} on {expect.shown(cpus)}" for group, cpus in others.items()), "groups with those cores")


@pytest.mark.control(id="RT-10.63", severity="high", title="A watcher makes the real-time cores their own again")
def test_partition_is_watched(units: Units) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(PARTITION), required, PARTITION)


@pytest.mark.control(
    id="RT-10.2", severity="critical", title="The kernel's clock tick is switched off on the real-time cores"
)
def test_nohz_full(cpus: Cpus, layout: CpuLayout) -> None:
    expect.equal(cpus.nohz_full, layout.isolated, "tickless cores")


@pytest.mark.control(id="RT-10.3", severity="critical", title="No other program may run on the real-time cores")
def test_no_foreign_task_may_run_there(foreign_tasks: tuple[Thread, ...], layout: CpuLayout) -> None:
    intruders = (task for task in foreign_tasks if task.cpus & layout.isolated)
    expect.nothing(intruders, "programs allowed on the isolated cores")


@pytest.mark.control(id="RT-10.4", severity="high", title="No other program was seen on the real-time cores")
def test_no_foreign_task_ran_there(foreign_tasks: tuple[Thread, ...], layout: CpuLayout) -> None:
    intruders = (task for task in foreign_tasks if task.last_cpu in layout.isolated)
    expect.nothing(intruders, "programs that ran last on an isolated core")


@pytest.mark.control(
    id="RT-10.60",
    severity="critical",
    title="Of the kernel's own threads only those use the real-time cores that must",
)
def test_kernel_threads_belong_there(threads: Threads, interrupts: Interrupts, layout: CpuLayout) -> None:
    fixed = {irq.number for irq in interrupts.all if not irq.is_movable}
    there = [task for task in threads.all if task.is_kernel and task.cpus & layout.isolated]
    strangers = (
        f"{task.name} on {expect.shown(task.cpus)}" for task in there if not _belongs(task, fixed, layout.topology)
    )
    expect.nothing(strangers, f"threads of the kernel, of {len(there)} that may run there, without a reason to")


def _belongs(task: Thread, fixed: Collection[int], topology: Topology) -> bool:
    """Whether a kernel thread has a reason to be allowed on an isolated core."""
    for pattern in _OF_A_CORE:
        if match := re.fullmatch(pattern, task.name):
            return task.cpus == {int(match[1])}
    if match := re.fullmatch(_OF_A_NODE, task.name):
        return task.cpus == topology.nodes.get(int(match[1]), frozenset())
    if match := re.fullmatch(_OF_AN_INTERRUPT, task.name):
        # Of a device's queue for that core alone: quiet unless a program there uses the device.
        return int(match[1]) in fixed
    # A rescuer is allowed everywhere, and sleeps until there is no memory left to start a worker where it is needed.
    return task.is_worker and not task.name.startswith("kworker/u") and task.cpus >= topology.online


@pytest.mark.control(id="RT-10.5", severity="critical", title="The real-time process stays on the real-time cores")
def test_rt_threads_on_isolated_cores(threads: Threads, layout: CpuLayout) -> None:
    tasks = threads.of(RT_UNIT)
    expect.at_least(len(tasks), 1, "threads of the real-time process")
    astray = (task for task in tasks if not task.cpus <= layout.isolated)
    expect.nothing(astray, "threads of it allowed elsewhere")


@pytest.mark.control(
    id="RT-10.6", severity="high", title="The application's other process stays off the real-time cores"
)
def test_non_rt_threads_on_housekeeping_cores(threads: Threads, layout: CpuLayout) -> None:
    tasks = threads.of(NON_RT_UNIT)
    expect.at_least(len(tasks), 1, "threads of the non-real-time process")
    astray = (task for task in tasks if not task.cpus <= layout.housekeeping)
    expect.nothing(astray, "threads of it allowed elsewhere")


@pytest.mark.control(
    id="RT-10.7", severity="critical", title="The first process, parent of all others, stays off the real-time cores"
)
def test_first_process(threads: Threads, layout: CpuLayout) -> None:
    first = threads.number(1)
    expect.that(
        first.cpus <= layout.housekeeping, first.cpus, f"within {layout.housekeeping_list}", "cores of process 1"
    )


@pytest.mark.control(id="RT-10.8", severity="high", title="System services are kept off the real-time cores")
def test_system_slice(slices: Slices, layout: CpuLayout) -> None:
    expect.equal(slices.cpus("system.slice"), layout.housekeeping, "cores of system.slice")


@pytest.mark.control(id="RT-10.9", severity="high", title="People who log in are kept off the real-time cores")
def test_user_slice(slices: Slices, layout: CpuLayout) -> None:
    expect.equal(slices.cpus("user.slice"), layout.housekeeping, "cores of user.slice")


@pytest.mark.control(id="RT-10.10", severity="high", title="The service manager is kept off the real-time cores")
def test_init_scope(slices: Slices, layout: CpuLayout) -> None:
    expect.equal(slices.cpus("init.scope"), layout.housekeeping, "cores of init.scope")


@pytest.mark.control(id="RT-10.11", severity="critical", title="The real-time process gets exactly the real-time cores")
def test_rt_slice(slices: Slices, layout: CpuLayout) -> None:
    expect.equal(slices.cpus(RT_SLICE), layout.isolated, f"cores of {RT_SLICE}")


@pytest.mark.control(id="RT-10.12", severity="medium", title="The service manager knows who may use which cores")
def test_systemd_agrees(units: Units, layout: CpuLayout) -> None:
    # What systemd holds survives the next reload; what only the kernel holds would not.
    required = dict.fromkeys(HOUSEKEEPING_GROUPS, layout.housekeeping_list) | {RT_SLICE: layout.isolated_list}
    allowed = {unit: units.of(unit).get("AllowedCPUs", "") for unit in required}
    expect.entries(allowed, required, "AllowedCPUs")


@pytest.mark.control(
    id="RT-10.13", severity="high", title="The kernel's clean-up of memory (RCU) is done on the other cores"
)
def test_rcu_callbacks_off_isolated_cores(threads: Threads, layout: CpuLayout) -> None:
    found = threads.kernel(r"rcuo[a-z]?/\d+|rcuog/\d+")
    expect.at_least(len(found), 1, "threads that run RCU callbacks for the isolated cores")
    expect.nothing((task for task in found if task.cpus & layout.isolated), "of them on isolated cores")


@pytest.mark.control(id="RT-10.14", severity="high", title="New kernel threads start on the other cores")
def test_kthreadd(threads: Threads, layout: CpuLayout) -> None:
    parent = threads.number(2)
    expect.that(
        parent.cpus <= layout.housekeeping, parent.cpus, f"within {layout.housekeeping_list}", "cores of kthreadd"
    )


@pytest.mark.control(id="RT-10.15", severity="high", title="The kernel's background work is done on the other cores")
def test_workqueue_default(cpus: Cpus, layout: CpuLayout) -> None:
    expect.equal(cpus.work, layout.housekeeping, "cores of unbound work")


@pytest.mark.control(
    id="RT-10.16",
    severity="high",
    title="Every kind of background work, writing to disks included, is done on the other cores",
)
def test_every_workqueue(cpus: Cpus, layout: CpuLayout) -> None:
    queues = cpus.work_queues
    expect.that("writeback" in queues, f"{len(queues)} queues", "writeback among them", "queues")
    # A queue's own mask is applied within the common one, and one made late (a disk found while booting) shows
    # all cores: wqattrs_actualize_cpumask() of the kernel's workqueue.c.
    common = cpus.work
    astray = (name for name, mask in queues.items() if (mask & common or common) & layout.isolated)
    expect.nothing(astray, "kinds of work allowed on isolated cores")


@pytest.mark.control(id="RT-10.17", severity="critical", title="The control loop runs with its real-time priority")
def test_loop_thread_priority(threads: Threads, config: HostConfig) -> None:
    required = (SCHED_POLICIES[config[RT_APP].rt_process.policy], config[RT_APP].rt_process.priority)
    found = [f"{task.name} {task.policy}/{task.priority}" for task in threads.of(RT_UNIT)]
    has_it = any((task.policy, task.priority) == required for task in threads.of(RT_UNIT))
    expect.that(
        has_it,
        ", ".join(found) or "no thread",
        f"a thread with {config[RT_APP].rt_process.policy} {config[RT_APP].rt_process.priority}",
        "threads of the real-time process (policy/priority)",
    )


@pytest.mark.control(
    id="RT-10.18", severity="high", title="No other program has a higher priority than the control loop"
)
def test_nobody_outranks_the_loop(foreign_tasks: tuple[Thread, ...], config: HostConfig, layout: CpuLayout) -> None:
    own = config[RT_APP].rt_process.priority
    # One that may not run on the loop's cores is none, whatever its priority.
    there = [task for task in foreign_tasks if task.cpus & layout.isolated]
    rivals = (task for task in there if task.policy == SCHED_DEADLINE or (task.policy and task.priority >= own))
    expect.nothing(rivals, "other programs with that priority or more on its cores")


@pytest.mark.control(id="RT-10.19", severity="critical", title="The real-time process's memory is kept in RAM")
def test_memory_is_locked(memory: Memory) -> None:
    unlocked = expect.found(memory.unlocked_kb, "memory of the real-time process that may leave RAM", "not told", "kB")
    expect.that(
        memory.everything.total_kb > 0 and unlocked <= _UNLOCKED_KB,
        f"{unlocked} kB of {memory.everything.total_kb} kB",
        f"at most {_UNLOCKED_KB} kB",
        "memory of the real-time process that may leave RAM",
    )
