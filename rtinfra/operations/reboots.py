"""Whether a run will end in a reboot: told before kernel and boot loader are the new ones, for plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from rtinfra.facts.boot import BOOT, BootState, parameter_name
from rtinfra.operations.change import Reboot
from rtinfra.operations.changes import Predicted, predicted

_IMAGE = "linux-image-"


def predicted_reboot(
    state: BootState, reasons: Sequence[str], parameters: Sequence[str], image_pattern: str, obstacle: str | None
) -> Reboot | None:
    """Return the reboot that follows from what is booted now and from what this run changes; None when there is none.

    `reasons` say how the booted system differs from the desired one, `parameters` are the desired words of its command
    line, `image_pattern` matches the release of its kernel. `obstacle` is why nobody may reboot the host now, if so.
    """
    later = predicted()
    files = [change for change in later.files if BOOT in change.restarts]
    kernels = list(_kernels(later, image_pattern, state.installed))
    names = set(map(parameter_name, parameters))
    ours = state.good.ours if state.good is not None else ()
    removed = [
        word for word in state.parameters if word not in parameters and (parameter_name(word) in names or word in ours)
    ]
    why = [f"kernel {release} is installed" for release in kernels]
    if state.newest is None and not kernels:
        why = [f"runs kernel {state.release}; one that matches {image_pattern} comes with this run"]
    elif state.newest is not None:
        why += [reason for reason in reasons if not (kernels and reason.startswith("runs kernel "))]
    added = [word for word in parameters if word not in state.parameters]
    if state.newest is None and (added or removed):
        why.append("the command line changes")
    if not why:
        return None
    if state.trial is not None and state.trial.status == "failed":
        why.append(f"the last trial, of {state.trial.release}, failed: {state.trial.reason}")
    return Reboot(
        name=state.release,
        text="needed, on trial" if obstacle is None else f"needed, but {obstacle}: the run will stop there",
        reasons=tuple(why),
        added=tuple(added),
        removed=tuple(removed),
        consequence=bool(files or kernels),
    )


def _kernels(later: Predicted, image_pattern: str, installed: Sequence[str]) -> Iterator[str]:
    for change in later.packages:
        release = change.name.removeprefix(_IMAGE)
        # A package that only points at the newest kernel has no release in its name.
        is_kernel = release != change.name and release[:1].isdigit() and fnmatchcase(release, image_pattern)
        if is_kernel and release not in installed:
            yield release
