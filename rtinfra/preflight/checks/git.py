"""The tree the application was deployed from: a commit, and nothing changed by hand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status
from rtinfra.preflight.settings import CheckSettings

_MOST_SHOWN = 5


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check, when a tree is named."""
    if settings.deployed_tree is not None:
        tree = str(settings.deployed_tree)
        yield Check("git", partial(_run, tree))


def _run(tree: str, context: Context) -> Result:
    try:
        answer = subprocess.run(
            # It belongs to whoever deployed it, and nothing in it is executed by these two questions.
            ["git", "-C", tree, "-c", f"safe.directory={tree}", "-c", "core.fsmonitor=false", "status",
             "--porcelain=v2", "--branch", "--untracked-files=normal"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=context.timeout,
            check=False,
            # Looking must not write the index.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError:
        return Result(Status.FAIL, "git is not installed", "install the Debian package git")
    except subprocess.TimeoutExpired:
        return Result(Status.FAIL, f"git did not answer within {context.timeout:g} s", f"look at the disk of {tree}")
    if answer.returncode != 0:
        said = (answer.stderr.decode(errors="replace").splitlines() or ["no reason given"])[0]
        return Result(Status.FAIL, f"{tree} is no git work tree: {said}", "deploy the application again")
    lines = answer.stdout.decode(errors="replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "unknown")
    changed = [line.split(" ")[-1] if line[0] != "?" else line[2:] for line in lines if line[0] != "#"]
    if not changed:
        return Result(Status.PASS, f"{tree} is clean at {commit[:12]}")
    more = f" and {len(changed) - _MOST_SHOWN} more" if len(changed) > _MOST_SHOWN else ""
    return Result(
        # On paper people try things out; what goes live must be what was reviewed.
        Status.WARN if context.environment == "paper" else Status.FAIL,
        f"{tree} at {commit[:12]} was changed by hand: {', '.join(changed[:_MOST_SHOWN])}{more}",
        f"commit the changes and deploy again, or take them back: git -C {tree} status",
    )
