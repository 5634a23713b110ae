"""``rtinfra images``: what hosts run in containers, made or fetched on this computer."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from rtinfra.commands import EXIT_FAILED, messages, plain_errors, tell
from rtinfra.images.build import BuildUnavailable, build_image
from rtinfra.images.image_store import LocalStore, how_to_get
from rtinfra.images.oci import ArchiveError, read_digest, verify
from rtinfra.images.pull import pull
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import ConsoleReporter

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Container images and our own packages: made or fetched here, carried to hosts by the deploy.\n\n"
    "Exit codes: 0 done, 1 failed (the message says what to do), 2 wrong usage or a wrong images/catalogue.yaml,"
    " 130 interrupted.",
)

_Names = Annotated[list[str] | None, typer.Argument(help="Names of images; all when left away.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON to standard output.")]


_KEPT = "What was in images/store before is still there."


@app.command("list")
def list_images(names: _Names = None, as_json: _Json = False) -> None:
    """Show all images of images/catalogue.yaml and whether they are in images/store.

    Examples:

        rtinfra images list

        rtinfra images list otelcol --json
    """
    with plain_errors(_KEPT):
        store = LocalStore()
        found = [_described(store, name) for name in _chosen(store, names)]
        if as_json:
            print(json.dumps(found, indent=2))
            return
        table = Table("Image", "Version", "Licence", "From", "State", "MB", box=box.SIMPLE, pad_edge=False)
        for each in found:
            columns = (each["name"], each["version"], each["licence"], each["from"], each["state"])
            table.add_row(*map(str, columns), _megabytes(each["bytes"]))
        Console(highlight=False).print(table)


@app.command("build")
def build_images(
    names: _Names = None,
    again: Annotated[bool, typer.Option("--again", help="Build what is there already too, and compare.")] = False,
    as_json: _Json = False,
) -> None:
    """Make images and our own packages that are not in images/store yet, or by an older recipe.

    Without NAMES: everything that this computer can make; the rest is named with the reason. The first time takes
    some 20 minutes while Go fetches and compiles, later a minute.

    Examples:

        rtinfra images build

        rtinfra images build prometheus alertmanager

        rtinfra images build --again otelcol
    """
    with plain_errors(_KEPT):
        store, report, console = LocalStore(), ConsoleReporter(), messages()
        results: list[dict[str, object]] = []
        failed = False
        for name in _chosen(store, names):
            if not names and store.catalogue.image(name).registry is not None:
                how = "" if store.state(name) == "ready" else how_to_get(name, store.catalogue.image(name))
                results.append({"name": name, "result": "from a registry", "reason": how})
                continue
            try:
                built = build_image(name, store, report, again=again)
            except LocalError as error:
                unavailable = isinstance(error, BuildUnavailable)
                failed |= bool(names) or not unavailable
                tell(console, error)
                result = "cannot be built here" if unavailable else "failed"
                results.append({"name": name, "result": result, "reason": error.message})
                continue
            same = {None: "built", True: "built again, the same bytes", False: "built again, other bytes"}
            result = "was there" if built.was_there else same[built.same_as_before]
            results.append({**_described(store, name), "result": result})
        _show(results, as_json)
        if failed:
            raise typer.Exit(EXIT_FAILED)


@app.command("pull")
def pull_images(names: _Names = None, as_json: _Json = False) -> None:
    """Fetch vendors' images by digest. Needs a connection to their registries, hosts never do.

    An image without a digest in images/catalogue.yaml gets the one its tag has now.

    Examples:

        rtinfra images pull

        rtinfra images pull grafana
    """
    with plain_errors(_KEPT):
        store, report, console = LocalStore(), ConsoleReporter(), messages()
        chosen = _chosen(store, names)
        if not names:
            chosen = [name for name in chosen if store.catalogue.image(name).registry is not None]
        results: list[dict[str, object]] = []
        failed = False
        for name in chosen:
            try:
                store, was_there = pull(name, store, report)
            except LocalError as error:
                failed = True
                tell(console, error)
                results.append({"name": name, "result": "failed", "reason": error.message})
                continue
            results.append({**_described(store, name), "result": "was there" if was_there else "fetched"})
        _show(results, as_json)
        if failed:
            raise typer.Exit(EXIT_FAILED)


@app.command("check")
def check_images(names: _Names = None, as_json: _Json = False) -> None:
    """Read what is in images/store completely: is it whole, and made by the recipes of today?

    With NAMES, those have to be there. Exit 1 when something is damaged, outdated, or named and missing.

    Examples:

        rtinfra images check

        rtinfra images check prometheus alertmanager jaeger otelcol
    """
    with plain_errors(_KEPT):
        store = LocalStore()
        results: list[dict[str, object]] = []
        failed = False
        for name in _chosen(store, names):
            state = store.state(name)
            reason = "" if state == "ready" else how_to_get(name, store.catalogue.image(name))
            if state == "ready":
                try:
                    verify(store.archive_path(name))
                except ArchiveError as error:
                    state, reason = "damaged", str(error)
            failed |= state in ("damaged", "outdated") or (state != "ready" and bool(names))
            results.append({"name": name, "result": state, "reason": reason})
        _show(results, as_json)
        if failed:
            raise typer.Exit(EXIT_FAILED)


def _chosen(store: LocalStore, names: list[str] | None) -> list[str]:
    for name in names or ():
        store.catalogue.image(name)  # a name that does not exist is told before anything starts
    return names or list(store.catalogue.images)


def _described(store: LocalStore, name: str) -> dict[str, object]:
    image, archive, state = store.catalogue.image(name), store.archive_path(name), store.state(name)
    ready = state == "ready"
    package = store.package_path(name) if ready else None
    return {
        "name": name,
        "version": image.version,
        "licence": image.licence,
        "from": image.kind,
        "state": state,
        "bytes": archive.stat().st_size if ready else None,
        "digest": read_digest(archive) if ready else None,
        "package": package.name if package else None,
    }


def _show(results: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=2))
        return
    for each in results:
        size = f" ({_megabytes(each['bytes'])} MB, {each['digest']})" if each.get("bytes") else ""
        reason = f": {each['reason']}" if each.get("reason") else ""
        print(f"{each['name']}: {each['result']}{size}{reason}")


def _megabytes(size: object) -> str:
    return f"{size / 1e6:.0f}" if isinstance(size, int) else "-"
