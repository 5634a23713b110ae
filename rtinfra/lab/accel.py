"""How the guest's processors run: on the machine's own (KVM), or emulated in software (TCG)."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rtinfra.local import programs

# QEMU's oldest 64-bit model and nearly x86-64-v2, plus hardware random numbers so that the guest does not wait for
# entropy. More (AVX, 5-level page tables of "max") makes emulated code slower, not faster. Of x86-64-v2, CMPXCHG16B is
# left out: QEMU 7.2 leaves garbage in the flags after it, and an interrupt before the next comparison comes back with
# that. The kernel, whose allocator uses it, then dies of a double fault. Programs that insist on all of x86-64-v2
# (containers of some distributions) do not start without it.
_TCG_CPU = "qemu64,-svm,-cx16,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand,+rdseed"


# The first QEMU whose processors translate code that another one is changing as it is then.
_TRANSLATES_SAFELY = (8, 1)


@dataclass(frozen=True)
class Acceleration:
    """Command-line options of QEMU and how long things take with them."""

    name: str
    arguments: tuple[str, ...]
    slowness: float
    """How many times longer a boot takes than with KVM (for deadlines and announcements)."""


KVM = Acceleration("kvm", ("-accel", "kvm", "-cpu", "host"), 1)
# One host thread per virtual CPU; 512 MiB for translated code keep a whole Debian without retranslation.
TCG = Acceleration("tcg", ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", _TCG_CPU), 5)


@functools.cache
def choose() -> Acceleration:
    """KVM when it really works, software emulation otherwise.

    ``/dev/kvm`` alone proves nothing: inside a virtual machine it can exist and still not run an ordinary
    kernel. So the processor must announce virtualisation, and QEMU must get a virtual CPU running.
    """
    return KVM if _kvm_works() else TCG


@functools.cache
def weakness() -> str | None:
    """What the emulator of this computer is known to do wrong, and what helps; None when nothing, as with KVM.

    Before QEMU 8.1 (commit deba78709ae8, "Always lock pages before translation") a processor may translate code in the
    very moment another one changes it, and keep the translation of what was there before. Linux changes its own code
    while it runs: it puts a breakpoint there first, and takes it away at last. A processor that still runs into it is
    dead: `Oops: int3`.
    """
    qemu = programs.find("qemu-system-x86_64")
    if qemu is None or choose() is not TCG:
        return None
    said = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False).stdout
    return weakness_of(said)


def weakness_of(said: str) -> str | None:
    """The weakness of the emulator that says this of its version (`qemu-system-x86_64 --version`); None when none."""
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) >= _TRANSLATES_SAFELY:
        return None
    return (
        f"QEMU {found[1]}.{found[2]} lets an emulated kernel crash now and then at its start (`Oops: int3`);"
        " 8.1 and newer do not. Debian 12 has one in its backports"
    )


def _kvm_works() -> bool:
    device = Path("/dev/kvm")
    if not os.access(device, os.R_OK | os.W_OK):
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    if "vmx" not in flags and "svm" not in flags:
        return False
    return _qemu_runs(KVM)


def _qemu_runs(acceleration: Acceleration) -> bool:
    """Start an empty machine and ask it whether its processor runs."""
    qemu = programs.find("qemu-system-x86_64")
    if qemu is None:
        return False
    command = [str(qemu), *acceleration.arguments, "-machine", "q35", "-m", "64"]
    command += ["-nodefaults", "-display", "none", "-qmp", "stdio"]
    questions = ("qmp_capabilities", "query-status", "quit")
    try:
        process = subprocess.run(
            command,
            input="\n".join(json.dumps({"execute": question}) for question in questions),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return process.returncode == 0 and '"status": "running"' in process.stdout
