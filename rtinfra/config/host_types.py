"""Types of settings that name or bound something of a host, and refuse what would harm it.

Beside `types`, whose values mean the same anywhere: here it matters what Debian, apt, systemd and a shell make of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from rtinfra.config.types import AbsolutePath, ByteSize, Duration, SettingError


def _below_root(names: str) -> tuple[str, ...]:
    return tuple(f"/{name}" for name in names.split())


# ---- folders

# Folders that others share: to make one of them ours would shut the others out.
_SHARED: Final = _below_root(
    "etc home media mnt opt srv var var/backups var/cache var/lib var/local var/log var/mail var/opt var/spool "
    "var/www usr/local"
)
# Trees of the system itself, gone after a boot or written to by packages: nothing of ours belongs below them.
_SYSTEM: Final = _below_root(
    "bin boot dev lib lib32 lib64 libx32 lost+found proc root run sbin sys tmp usr var/run var/lock var/tmp "
    "etc/apt etc/alternatives etc/ca-certificates etc/chrony etc/containers etc/cron.d etc/cron.daily etc/dbus-1 "
    "etc/default etc/dpkg etc/grub.d etc/init.d etc/initramfs-tools etc/kernel etc/ld.so.conf.d etc/logrotate.d "
    "etc/modprobe.d etc/modules-load.d etc/netplan etc/network etc/nginx etc/pam.d etc/profile.d etc/rtinfra "
    "etc/security etc/skel etc/ssh etc/ssl etc/sudoers.d etc/sysctl.d etc/systemd etc/udev etc/xdg "
    "var/cache/apt var/cache/debconf var/cache/rtinfra var/lib/apt var/lib/chrony var/lib/containers var/lib/dbus "
    "var/lib/dhcp var/lib/dpkg var/lib/grub var/lib/initramfs-tools var/lib/logrotate var/lib/pam var/lib/private "
    "var/lib/prometheus var/lib/rtinfra var/lib/systemd var/lib/ucf var/log/apt var/log/journal var/log/private "
    "var/spool/cron"
)


def _own_folder(path: PurePosixPath, info: ValidationInfo) -> PurePosixPath:
    # Named by the setting: two of them never get the same proposal.
    own = f"mxrc-{(info.field_name or 'own').partition('_')[0]}"
    if str(path) in ("/", *_SHARED) or path.parent == PurePosixPath("/home"):
        example = PurePosixPath("/var") / own if len(path.parts) == 1 else path / own
        raise SettingError("is a folder that others use too, and a deploy makes it one account's", f"use {example}")
    tree = next((tree for tree in _SYSTEM if path.is_relative_to(tree)), None)
    if tree is not None:
        raise SettingError(
            f"is in {tree}, which belongs to the system",
            f"use {'/var/lib' if path.is_relative_to('/var/lib') else '/var'}/{own}",
        )
    return path


OwnFolder = Annotated[AbsolutePath, AfterValidator(_own_folder)]
"""A folder that a deploy makes, with an owner and a mode: one of its own, apart from what the system has."""


# ---- names


def _pattern(pattern: str, reason: str, mended: Callable[[str], str] | None = None) -> AfterValidator:
    """Return a validator for text that has to match as a whole; `mended` makes a proposal of what does not."""
    right = re.compile(pattern)

    def check(text: str) -> str:
        if right.fullmatch(text):
            return text
        proposal = mended(text) if mended is not None else ""
        raise SettingError(reason, f"write {proposal}" if proposal and right.fullmatch(proposal) else None)

    return AfterValidator(check)


_PACKAGE = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](:[a-z0-9-]+)?"


def _first_package(text: str) -> str:
    found = re.search(_PACKAGE, text.lower().lstrip("-"))
    return found[0] if found else ""


PackageName = Annotated[
    str,
    # Policy 5.6.7. A hyphen at the end would tell apt to remove the package, one at the beginning is an option.
    _pattern(f"{_PACKAGE}(/[a-z0-9][a-z0-9.-]*)?", "is not the name of one Debian package", _first_package),
]
"""A Debian package, `name` or `name/suite`."""

ModuleName = Annotated[
    str,
    _pattern(
        r"[A-Za-z0-9][A-Za-z0-9_-]*",
        "is not the name of a kernel module",
        lambda text: re.sub(r"\W+", "_", text.partition(";")[0].strip()),
    ),
]
"""A kernel module, as modprobe(8) takes it."""

PrintedName = Annotated[
    str,
    _pattern(r"[A-Za-z0-9][A-Za-z0-9 ._()/:+-]*", "must be one line of letters, digits, blanks and . _ ( ) / : + -"),
]
"""A name that programs show, such as a watchdog's or a service's: no quotes, nothing that a shell or udev reads."""

# Accounts that Debian makes (base-passwd, systemd, and what our packages bring): what they run is not ours to own.
_ACCOUNTS: Final = (
    *("root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data"),
    *("backup", "list", "irc", "gnats", "nobody", "_apt", "messagebus", "sshd", "polkitd", "_chrony", "tss", "uuidd"),
    *("dnsmasq", "nginx", "prometheus", "docker-registry", "adm", "tty", "disk", "dialout", "sudo", "shadow", "utmp"),
    *("kmem", "staff", "users", "nogroup", "wheel", "input", "kvm", "render"),
)
_ACCOUNT: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


def _account(name: str) -> str:
    if not _ACCOUNT.fullmatch(name):
        repaired = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:31]
        raise SettingError(
            "is not the name of an account: small letters, digits, - and _, a letter first",
            f"write {repaired}" if _ACCOUNT.fullmatch(repaired) else None,
        )
    return name


AccountName = Annotated[str, AfterValidator(_account)]
"""A login or group, useradd(8)."""


def _own_account(name: str) -> str:
    if _account(name) in _ACCOUNTS or name.startswith("systemd-"):
        raise SettingError("is an account of the system, with rights of its own", "use mxrc")
    return name


OwnAccount = Annotated[str, AfterValidator(_own_account)]
"""An account or group that a deploy makes and that owns what is ours."""


# ---- addresses

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 1123, section 2.1.
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_HOST_NAME: Final = 253


def is_host_name(text: str) -> bool:
    """Tell whether this may be a host's name."""
    return len(text) <= _LONGEST_HOST_NAME and _HOST_NAME.fullmatch(text) is not None


def host_address(text: str) -> str:
    """Return an IP address or host name in its one form.

    Raises:
        SettingError: it is neither.
    """
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if re.fullmatch(r"[0-9.]+", text) or not is_host_name(text):
        raise SettingError("is neither an IP address nor a host name", "write for example 192.0.2.10")
    return text.lower()


HostAddress = Annotated[str, AfterValidator(host_address)]
"""An IP address or a host name."""


def _bind_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise SettingError("is not an IP address", "write 0.0.0.0 for every address of the host") from error


BindAddress = Annotated[str, AfterValidator(_bind_address)]
"""An IP address to listen at."""


def _ip_network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        inside = ip_network(value, strict=False)
    except ValueError as error:
        usual = "write for example 192.0.2.0/24, or 192.0.2.10 for one"
        raise SettingError("is not a network of IP addresses", usual) from error
    try:
        return ip_network(value)
    except ValueError as error:
        raise SettingError("is an address inside a network", f"write {inside}") from error


IpNetwork = Annotated[IPv4Network | IPv6Network, BeforeValidator(_ip_network)]
"""A network of IP addresses, 192.0.2.0/24, or one address."""


# ---- times, sizes, shares


def _between(parse: Callable[[str], Any], least: str, most: str, unit: str, usual: str = "") -> AfterValidator:
    """Return a validator with bounds.

    Where a value falls below them the proposal is the same number with `unit`, if there was none, or what is `usual`.
    """
    lowest, highest = parse(least), parse(most)

    def check(value: Any) -> Any:
        if lowest <= value <= highest:
            return value
        nearest = (usual or least) if value < lowest else most
        if value < lowest and str(value).isdigit() and lowest <= parse(f"{value}{unit}") <= highest:
            nearest = f"{value}{unit}"
        raise SettingError(f"must be between {least} and {most}", f'write "{nearest}"')

    return AfterValidator(check)


def _time(least: str, most: str, unit: str = "s", usual: str = "") -> AfterValidator:
    return _between(Duration.parse, least, most, unit, usual)


def _size(least: str, most: str) -> AfterValidator:
    return _between(ByteSize.parse, least, most, "M")


Moment = Annotated[Duration, _time("1ms", "10min")]
"""How long an answer or one attempt may take."""

Pause = Annotated[Duration, _time("0s", "1h")]
"""Between two attempts; 0s for none."""

Interval = Annotated[Duration, _time("1s", "1d")]
"""How often something is done."""

Tolerance = Annotated[Duration, _time("0s", "30d", "h")]
"""How late something may still come; 0s for not at all."""

Retention = Annotated[Duration, _time("1h", "3650d", "d")]
"""How long something is kept: never for ever, and never for seconds because a unit was forgotten."""

Silence = Annotated[Duration, _time("1s", "10min", usual="20s")]
"""After how long without a sign of life something is ended. 0s would switch the watchdog off."""

Shutdown = Annotated[Duration, _time("30s", "1h")]
"""How long the shutdown of a host may take until the hardware ends it."""

MemoryBound = Annotated[ByteSize, _size("16M", "64T")]
"""What a program may use; 0 would let it use nothing, bytes are no unit for it."""

DiskSize = Annotated[ByteSize, _size("16M", "8192T")]
"""Space on a disk."""


def _share(most: int) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, bool):
            value = None
        number = re.fullmatch(r"([0-9]{1,7})\s*%?", str(value).strip())
        if number is not None and isinstance(value, str) and value.endswith("%") and 1 <= int(number[1]) <= most:
            return f"{int(number[1])}%"
        meant = min(max(int(number[1]), 1), most) if number is not None else 100
        raise SettingError(f"must be a share between 1% and {most}%", f'write "{meant}%"')

    return BeforeValidator(check)


CpuQuota = Annotated[str, _share(100 * 8192)]
"""CPUQuota= of systemd.resource-control(5): 100% is one core."""

MemoryShare = Annotated[str, _share(100)]
"""A part of the host's memory."""
