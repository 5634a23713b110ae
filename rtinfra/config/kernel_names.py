"""Kernel settings and parameters by name: what is misspelt, out of bounds, or would keep a host from coming back.

Names and bounds: Documentation/admin-guide/sysctl/ and kernel-parameters.txt of Linux 6.12.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from rtinfra.config.problems import Finding
from rtinfra.config.types import SettingError

Bounds = tuple[int, int]
# How much alike two names are, of 1, when one is taken for a slip of the other.
_LIKE: Final = 0.82


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_INT: Final[Bounds] = (-(2**31), 2**31 - 1)
_COUNT: Final[Bounds] = (0, 2**31 - 1)
_SWITCH: Final[Bounds] = (0, 1)

#: Bounds of whole numbers by key; None for what is no single number.
SYSCTLS: Final[Mapping[str, Bounds | None]] = {
    **dict.fromkeys(
        _names(
            "kernel.ctrl-alt-del kernel.hardlockup_all_cpu_backtrace kernel.hardlockup_panic kernel.modules_disabled "
            "kernel.nmi_watchdog kernel.panic_on_io_nmi "
            "kernel.panic_on_oops kernel.panic_on_rcu_stall kernel.panic_on_unrecovered_nmi kernel.panic_on_warn "
            "kernel.sched_autogroup_enabled kernel.sched_schedstats kernel.soft_watchdog kernel.softlockup_panic "
            "kernel.softlockup_all_cpu_backtrace kernel.hung_task_panic kernel.hung_task_all_cpu_backtrace "
            "kernel.timer_migration kernel.unknown_nmi_panic kernel.watchdog kernel.dmesg_restrict "
            "kernel.core_uses_pid kernel.kexec_load_disabled kernel.oops_all_cpu_backtrace vm.block_dump "
            "vm.compact_unevictable_allowed vm.memory_failure_early_kill vm.memory_failure_recovery "
            "vm.oom_dump_tasks vm.oom_kill_allocating_task fs.protected_hardlinks "
            "fs.protected_symlinks fs.leases-enable"
        ),
        _SWITCH,
    ),
    **dict.fromkeys(
        _names(
            "kernel.hung_task_check_count kernel.hung_task_check_interval_secs kernel.hung_task_timeout_secs "
            "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.pid_max kernel.printk_delay kernel.printk_ratelimit "
            "kernel.printk_ratelimit_burst kernel.sched_rr_timeslice_ms kernel.threads-max kernel.oops_limit "
            "kernel.warn_limit kernel.perf_event_max_sample_rate kernel.perf_event_mlock_kb "
            "kernel.perf_cpu_time_max_percent kernel.keys.maxkeys kernel.keys.maxbytes kernel.panic_print kernel.sysrq "
            "kernel.sched_deadline_period_max_us kernel.sched_deadline_period_min_us kernel.sched_util_clamp_max "
            "kernel.sched_util_clamp_min vm.admin_reserve_kbytes vm.dirty_background_bytes vm.dirty_bytes "
            "vm.dirty_expire_centisecs vm.dirty_writeback_centisecs vm.dirtytime_expire_seconds "
            "vm.extfrag_threshold vm.max_map_count vm.min_free_kbytes vm.mmap_min_addr vm.nr_hugepages "
            "vm.nr_hugepages_mempolicy vm.nr_overcommit_hugepages vm.user_reserve_kbytes vm.vfs_cache_pressure "
            "vm.watermark_boost_factor vm.watermark_scale_factor vm.hugetlb_shm_group vm.overcommit_kbytes "
            "fs.aio-max-nr fs.file-max fs.nr_open fs.pipe-max-size fs.pipe-user-pages-soft fs.pipe-user-pages-hard "
            "fs.inotify.max_queued_events fs.inotify.max_user_instances fs.inotify.max_user_watches "
            "fs.mqueue.msg_max fs.mqueue.msgsize_max fs.mqueue.queues_max fs.epoll.max_user_watches fs.lease-break-time"
        ),
        (0, 2**63 - 1),
    ),
    **dict.fromkeys(
        _names(
            "kernel.core_pattern kernel.domainname kernel.hostname kernel.modprobe kernel.printk kernel.sem "
            "kernel.shmall kernel.shmmax kernel.shmmni kernel.watchdog_cpumask kernel.poweroff_cmd kernel.hotplug "
            "kernel.seccomp.actions_logged vm.lowmem_reserve_ratio vm.numa_zonelist_order kernel.cad_pid "
            "kernel.printk_devkmsg kernel.perf_event_max_stack kernel.perf_event_max_contexts_per_stack"
        )
    ),
    # -1 lifts the bound on real-time threads; below sched_rt_period_us otherwise.
    "kernel.sched_rt_runtime_us": (-1, 2**31 - 1),
    "kernel.sched_rt_period_us": (1, 2**31 - 1),
    "kernel.numa_balancing": (0, 3),
    "kernel.panic": (-1, 3600),
    "kernel.randomize_va_space": (0, 2),
    "kernel.kptr_restrict": (0, 2),
    "kernel.perf_event_paranoid": (-1, 4),
    "kernel.unprivileged_bpf_disabled": (0, 2),
    "kernel.yama.ptrace_scope": (0, 3),
    "kernel.watchdog_thresh": (0, 60),
    "kernel.sched_energy_aware": _SWITCH,
    "kernel.acct": None,
    "kernel.ftrace_enabled": _SWITCH,
    "kernel.ftrace_dump_on_oops": None,
    "kernel.stack_tracer_enabled": _SWITCH,
    "kernel.traceoff_on_warning": _SWITCH,
    "kernel.tracepoint_printk": _SWITCH,
    "vm.compaction_proactiveness": (0, 100),
    "vm.compact_memory": _SWITCH,
    "vm.dirty_background_ratio": (0, 100),
    "vm.dirty_ratio": (0, 100),
    "vm.drop_caches": (1, 4),
    "vm.laptop_mode": _COUNT,
    "vm.legacy_va_layout": _SWITCH,
    "vm.min_slab_ratio": (0, 100),
    "vm.min_unmapped_ratio": (0, 100),
    "vm.numa_stat": _SWITCH,
    "vm.overcommit_memory": (0, 2),
    "vm.overcommit_ratio": (0, 10_000),
    "vm.page-cluster": (0, 31),
    "vm.page_lock_unfairness": _COUNT,
    "vm.panic_on_oom": (0, 2),
    "vm.percpu_pagelist_high_fraction": _COUNT,
    "vm.stat_interval": (1, 3600),
    "vm.stat_refresh": None,
    "vm.swappiness": (0, 200),
    "vm.unprivileged_userfaultfd": _SWITCH,
    "vm.zone_reclaim_mode": (0, 7),
    "fs.protected_fifos": (0, 2),
    "fs.protected_regular": (0, 2),
    "fs.suid_dumpable": (0, 2),
}
_SPACES: Final = ("abi", "crypto", "debug", "dev", "fs", "kernel", "net", "sunrpc", "user", "vm")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_@:-]+)+")
# A key of these is a switch of one interface or protocol; nobody can list them all.
_OPEN: Final = ("net", "dev", "user", "sunrpc", "debug", "crypto", "abi")


def sysctl_finding(key: str, value: int | str) -> Finding | None:
    """Return what is wrong with a kernel setting: an error, or a warning when its name is not known here."""
    name, _, _ = key.partition(".")
    if not _KEY.fullmatch(key) or name not in _SPACES:
        return Finding(key, value, "is not the name of a kernel setting such as vm.swappiness", _similar(key))
    if key not in SYSCTLS:
        if name in _OPEN:
            return None
        if (similar := _similar(key)) is not None:
            return Finding(key, value, "is not a kernel setting", similar)
        return Finding(key, value, "is not known here; the host says whether its kernel has it", None, "warning")
    bounds = SYSCTLS[key]
    if bounds is None:
        return None
    if not re.fullmatch(r"\s*-?[0-9]{1,20}\s*", str(value)):
        return Finding(key, value, f"must be a whole number between {bounds[0]} and {bounds[1]}", f"use {bounds[0]}")
    number = int(value)
    if not bounds[0] <= number <= bounds[1]:
        nearest = bounds[0] if number < bounds[0] else bounds[1]
        return Finding(key, value, f"must be between {bounds[0]} and {bounds[1]}", f"use {nearest}")
    return None


def _similar(key: str) -> str | None:
    found = difflib.get_close_matches(key, SYSCTLS, n=1, cutoff=_LIKE)
    return f"did you mean {found[0]}?" if found else None


# What decides whether the host starts at all, and as what: not this product's to set.
_NOT_OURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        _names("init rdinit systemd.unit systemd.wants systemd.mask systemd.debug_shell rescue emergency"),
        "decides what starts instead of the system",
    ),
    **dict.fromkeys(
        _names(
            "root rootfstype rootflags rootdelay rootwait ro rw resume initrd noinitrd ip nfsroot cryptdevice "
            "BOOT_IMAGE fsck.mode fsck.repair break"
        ),
        "says where the system is, which the boot loader knows",
    ),
    **dict.fromkeys(_names("single S s 1 2 3 4 5 -b"), "would start the host for maintenance only"),
    **dict.fromkeys(
        _names("nosmp maxcpus nr_cpus possible_cpus mem memmap nolapic noapic"),
        "takes cores, memory or interrupts away that the other settings count on",
    ),
    "kthread_cpus": "is not a parameter of the kernel, which ignores it",
}
#: Parameters that are asked for on real-time hosts.
PARAMETERS: Final = frozenset(
    _names(
        "acpi_irq_nobalance acpi_osi amd_iommu amd_pstate apparmor audit audit_backlog_limit clocksource console "
        "consoleblank cpuidle.off cpuidle.governor cgroup_disable cgroup_enable default_hugepagesz efi efi_pstore "
        "elevator hpet hugepages hugepagesz hugetlb_free_vmemmap i8042.nopnp idle ima_policy init_on_alloc "
        "init_on_free intel_idle.max_cstate intel_iommu intel_pstate intremap iommu iommu.passthrough ipv6.disable "
        "irqpoll isolcpus kasan lapic libata.force lockdown log_buf_len loglevel lsm mce mitigations mmiotrace "
        "module.sig_enforce module_blacklist net.ifnames biosdevname nmi_watchdog no_console_suspend nohibernate "
        "nohlt nohz nohz_full nomodeset noresume nosmt nosoftlockup notsc nowatchdog nox2apic numa numa_balancing "
        "oops page_alloc.shuffle panic panic_on_oops panic_print pci pcie_aspm pcie_port_pm pcie_ports "
        "plymouth.enable printk.devkmsg printk.time processor.max_cstate processor.nocst pti quiet random.trust_cpu "
        "rcu_nocb_poll rcu_nocbs rcupdate.rcu_cpu_stall_suppress rcupdate.rcu_cpu_stall_timeout "
        "rcupdate.rcu_expedited rcupdate.rcu_normal rcupdate.rcu_normal_after_boot rcutree.enable_rcu_lazy "
        "rcutree.kthread_prio rcutree.nohz_full_patience_delay rcutree.use_softirq retbleed irqaffinity "
        "security selinux skew_tick slab_nomerge slub_debug spec_store_bypass_disable spectre_v2 splash srbds swiotlb "
        "systemd.log_level systemd.show_status systemd.unified_cgroup_hierarchy systemd.gpt_auto threadirqs "
        "timer_migration transparent_hugepage tsc tsx usbcore.autosuspend vga video vsyscall watchdog "
        "watchdog_thresh workqueue.power_efficient workqueue.unbound_cpus x2apic_phys xen_nopvspin i915.enable_dc "
        "i915.enable_rc6 i915.enable_psr ahci.mobile_lpm_policy nvme_core.default_ps_max_latency_us nosgx "
        "preempt psi fips crashkernel cpufreq.off cpufreq.default_governor cma coherent_pool kvm kvm_intel.ept "
        "kvm.ignore_msrs earlyprintk earlycon debug ignore_loglevel initcall_debug nokaslr nopti noxsave"
    )
)


def name_of(word: str) -> str:
    """Return the name of a parameter in its one form: to the kernel hyphens are underscores, kernel/params.c."""
    return word.partition("=")[0].replace("-", "_")


def checked_parameter(word: str) -> str:
    """Return one word of the kernel's command line.

    Raises:
        SettingError: its name is misspelt, or it would keep the host from starting as it is.
    """
    name = name_of(word)
    for other, reason in _NOT_OURS.items():
        if name == name_of(other):
            raise SettingError(f"{reason} ({other})", "remove it")
    known = {name_of(each): each for each in PARAMETERS}
    if name not in known and (close := difflib.get_close_matches(name, known, n=1, cutoff=_LIKE)):
        _, equals, value = word.partition("=")
        meant = f"{known[close[0]]}{equals}{value}"
        raise SettingError(f"{name} is not a parameter of the kernel", f"did you mean {meant}?")
    return word
