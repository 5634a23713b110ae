"""The closure proof: chains of what is missing, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtinfra.local.progress import Reporter
from rtinfra.mirror.completeness import Checked, check, explain_broken
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LockedFile
from tests.unit.mirror_archive import settings
from tests.unit.mirror_site import site


def stanza(name: str, version: str = "1.10", **fields: str) -> str:
    lines = {"Package": name, "Version": version, "Architecture": "amd64", **fields}
    return "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in lines.items()) + "\n"


def broken(*stanzas: str) -> dict[str, str]:
    found = explain_broken("".join(stanzas).encode(), "amd64", Reporter())
    return {each.package: each.reason for each in found}


def test_a_complete_set_has_nothing_to_tell() -> None:
    assert broken(stanza("a", Depends="b (>= 1), c | d"), stanza("b"), stanza("d", Provides="x")) == {}


def test_a_missing_dependency_is_told_with_the_chain_that_leads_to_it() -> None:
    lib = stanza("lib", "1:2.0", Pre_Depends="base (>= 3) | other")
    found = broken(stanza("app", Depends="lib"), lib, stanza("base"))
    assert found == {
        "app 1.10": "needs lib, which needs base (>= 3) | other, which is not in the lock",
        "lib 1:2.0": "needs base (>= 3) | other, which is not in the lock",
    }


def test_packages_that_exclude_each_other_are_told_with_both_ways() -> None:
    found = broken(stanza("app", Depends="one, two"), stanza("one", Conflicts="two"), stanza("two"))
    assert found == {"app 1.10": "needs one and needs two, but one and two exclude each other"}


def test_an_index_that_is_none_is_refused() -> None:
    with pytest.raises(MirrorError, match="could not read the index"):
        explain_broken(b"Package: a\nVersion 1\n\n\n: :\n", "amd64", Reporter())


def checked(tmp_path: Path, depends: str = "", lost: bool = False) -> Checked:
    here = site(tmp_path)
    package = here.package("app", depends=depends)
    lock = here.lock([package])
    if lost:
        here.mirror.pool.path(package.locked.sha256).unlink()
    return check(lock, here.mirror, settings(), Reporter())


def test_a_lock_that_is_complete_and_here_is_fine(tmp_path: Path) -> None:
    found = checked(tmp_path)
    assert found.ok and found.to_json()["ok"] and found.packages == 1


def test_a_lock_with_a_hole_is_not(tmp_path: Path) -> None:
    found = checked(tmp_path, depends="ghost")
    assert not found.ok
    assert [str(each) for each in found.broken] == ["app 1.0-1 needs ghost, which is not in the lock"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["requirements.txt", "preflight.txt"])
def test_wheels_that_are_not_locked_are_told(tmp_path: Path, name: str) -> None:
    here = site(tmp_path)
    wheel = here.wheel("some")
    data = f"some==1.0 --hash=sha256:{wheel.sha256}\n".encode()
    file = LockedFile(name=name, **here.put("file", data, name).to_json(), why=("test",))
    complete = here.lock(wheels=(wheel,)).model_copy(update={"files": (file,)})
    assert check(complete, here.mirror, settings(), Reporter()).ok
    found = check(complete.model_copy(update={"wheels": ()}), here.mirror, settings(), Reporter())
    assert not found.ok and "some" in found.wheels_missing


def test_what_is_still_to_be_fetched_is_told(tmp_path: Path) -> None:
    found = checked(tmp_path, lost=True)
    assert not found.ok and not found.broken
    assert found.not_in_pool == ("app_1.0-1_amd64.deb",)
