"""One change of a host: operations tell it, a plan shows it, the record of a run keeps it.

The JSON of each kind is documented in docs/plan.md.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Json = dict[str, Any]

_SHOWN_AT_MOST = 2_000_000


class _Change(BaseModel):
    """One thing of a host that becomes another. A `consequence` follows from other changes of the same run."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    text: str
    consequence: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether it is a change: neither a consequence of one, nor the word that something is not known."""
        return not self.consequence

    @property
    def desired(self) -> str:
        """What tells two changes of the same thing apart; never shown."""
        return self.text

    def to_json(self) -> Json:
        """Return it as a plan has it."""
        return self.model_dump(mode="json")

    def to_record(self) -> Json:
        """Return it as the record of a run keeps it."""
        return self.to_json()


class FileChange(_Change):
    """A path that becomes another: `text` says in words how; `file` makes one.

    `content` tells whether contents are shown, and why not; `diff` is a unified diff, empty where contents are secret,
    no text, or the same. `restarts` and `actions` name what follows, `sha256` is that of the contents to be.
    """

    kind: Literal["file"] = "file"
    content: str = "none"
    diff: str = ""
    sha256: str = Field(default="", exclude=True, repr=False)
    restarts: tuple[str, ...] = Field(default=(), exclude=True)
    actions: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def desired(self) -> str:
        return f"{self.text} {self.sha256}"

    def to_record(self) -> Json:
        # Which line of a file is another one is not for a record that is kept: only which file.
        return self.model_dump(mode="json", exclude={"diff"})


class RuntimeValueChange(_Change):
    """A value of the running kernel that somebody changed by hand, put back."""

    kind: Literal["live"] = "live"


class ActionRun(_Change):
    """A command that makes changed files take effect."""

    kind: Literal["action"] = "action"


class PackageChange(_Change):
    """A Debian package: `new` is None while its version is not known, `old` when it is not installed."""

    kind: Literal["package"] = "package"
    old: str | None
    new: str | None


class UnitChange(_Change):
    """A systemd unit: `text` names what is done to it, `because` why."""

    kind: Literal["unit"] = "unit"
    because: str


class ImageChange(_Change):
    """A container image that a host gets."""

    kind: Literal["image"] = "image"


class Reboot(_Change):
    """A reboot, with the kernel arguments that it adds to and removes from the booted ones."""

    kind: Literal["reboot"] = "reboot"
    reasons: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Step(_Change):
    """Something that is done and is none of the other kinds."""

    kind: Literal["step"] = "step"


class Unknown(_Change):
    """What cannot be known before the run, in words."""

    kind: Literal["unknown"] = "unknown"

    @property
    def is_counted(self) -> bool:
        return False


Change = Annotated[
    FileChange | RuntimeValueChange | ActionRun | PackageChange | UnitChange | ImageChange | Reboot | Step | Unknown,
    Field(discriminator="kind"),
]
_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)


def from_json(data: Mapping[str, Any]) -> Change:
    """Return the change that `to_json` told.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _CHANGE.validate_python(data)


def file(
    name: str,
    text: str,
    before: bytes | None = None,
    after: bytes | None = None,
    secret: bool = False,
    restarts: tuple[str, ...] = (),
    actions: tuple[str, ...] = (),
) -> FileChange:
    """Return the change of a path. Of a secret one nothing is kept but a hash.

    `before` and `after` are its contents: None where there are none, where nobody asked, and before those that only
    root may read.
    """
    content, diff = ("secret", "") if secret else (_content(before, after), _diff(name, before, after))
    sha256 = hashlib.sha256(after or b"").hexdigest()
    return FileChange(
        name=name, text=text, content=content, diff=diff, sha256=sha256, restarts=restarts, actions=actions
    )


def package(name: str, old: str | None, new: str | None, consequence: bool = False) -> PackageChange:
    """Return the change of a package; as a consequence it is one that another needs."""
    version = new or "version not known before"
    text = version if old is None else f"{old} -> {version}"
    return PackageChange(name=name, text=text, old=old, new=new, consequence=consequence)


def _content(before: bytes | None, after: bytes | None) -> str:
    known = [content for content in (before, after) if content is not None]
    if any(_text(content) is None for content in known):
        return f"no text, {len(after or b'')} bytes"
    return "shown" if known else "none"


def _diff(name: str, before: bytes | None, after: bytes | None) -> str:
    old, new = _text(before), _text(after)
    if old is None or new is None:
        return ""
    names = ["/dev/null" if content is None else name for content in (before, after)]
    return "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), names[0], names[1], lineterm=""))


def _text(content: bytes | None) -> str | None:
    """Return a content as text, None when it is none."""
    if content is not None and (len(content) > _SHOWN_AT_MOST or b"\0" in content):
        return None
    try:
        return (content or b"").decode()
    except UnicodeDecodeError:
        return None
