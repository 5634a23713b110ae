"""Parts of the program that boots a host on trial, run by sh: what they read and write is below a folder."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from rtinfra.render import render

RELEASE = "6.12-rt"


def menu(options: str) -> str:
    """Return grub.cfg with an entry of the kernel whose head has some options more."""
    head = f"menuentry 'Debian GNU/Linux, with Linux {RELEASE}' --class debian --class os{options}"
    return f"""{head} $menuentry_id_option 'gnulinux-{RELEASE}-advanced-0000' {{
	load_video
	insmod gzio
	linux	/boot/vmlinuz-{RELEASE} root=UUID=1 ro memmap=96M\\$0x38 $vt_handoff
	initrd	/boot/early.cpio /boot/initrd.img-{RELEASE}
}}
"""


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """A folder with an empty boot and etc."""
    for folder in ("boot/grub", "boot/rtinfra/abc", "etc/rtinfra"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/rtinfra/boot.conf").touch()
    return tmp_path


def call(below: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run words of sh with the program's functions, whose every path is below a folder."""
    functions = render("rt_kernel/boot.sh").decode().rpartition('case "${1-}" in')[0]
    functions = re.sub(r"(?<![A-Za-z0-9_.}$/])/(boot|etc)(?=/|\b)", rf"{below}/\1", functions)
    assert str(below) in functions
    # Of GRUB's own programs this one is needed; the answer is that of a disk whose root has /boot.
    program(below, "grub-mkrelpath", f'printf "%s" "${{1#{below}}}"')
    environment = {**os.environ, "PATH": f"{below}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", functions + script], capture_output=True, text=True, check=False, env=environment
    )


def program(below: Path, name: str, script: str) -> None:
    """Put a program of GRUB's in the way of the one of this machine."""
    path = below / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def frozen(below: Path, text: str = "") -> None:
    """Make the folder of an entry as the program leaves it; `text` empty: as it did before it kept GRUB's text."""
    folder = below / "boot/rtinfra/abc"
    (folder / "release").write_text(f"{RELEASE}\n")
    (folder / "words").write_text("root=UUID=1 ro memmap=96M$0x38\n")
    if text:
        (folder / "text").write_text(f"{text}\n")


@pytest.mark.parametrize("options", ["", " --unrestricted", " --users 'root'"])
def test_the_head_of_an_entry_is_kept(below: Path, options: str) -> None:
    """Lost, `--unrestricted` would let GRUB wait for a name on a host that nobody watches."""
    (below / "boot/grub/grub.cfg").write_text(menu(options))
    frozen(below)
    done = call(below, "menu_entry good abc")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"menuentry 'Last known good: {RELEASE} (rtinfra)' --class debian --class os{options} --id rtinfra-good {{",
        "\tload_video",
        "\tinsmod gzio",
        "\tlinux /boot/rtinfra/abc/vmlinuz root=UUID=1 ro memmap=96M\\$0x38 rtinfra.good=abc",
        "\tinitrd /boot/early.cpio /boot/rtinfra/abc/initrd.img",
        "}",
    ]


def test_a_trial_that_cannot_be_loaded_starts_the_machine_again(below: Path) -> None:
    (below / "boot/grub/grub.cfg").write_text(menu(""))
    frozen(below, text=r"root=UUID=1 ro memmap=96M\$0x38 $vt_handoff")
    said = call(below, "menu_entry trial abc").stdout
    words = r"root=UUID=1 ro memmap=96M\$0x38 $vt_handoff panic=20 rtinfra.trial=abc"
    assert f"\tif linux /boot/rtinfra/abc/vmlinuz {words}; then true; else reboot; fi\n" in said
    assert "\tif initrd /boot/early.cpio /boot/rtinfra/abc/initrd.img; then true; else reboot; fi\n" in said


@pytest.mark.parametrize(
    ("told", "has_ours"), [("ro", True), ("ro panic=0", True), ("panic=5", False), ("panic=-1", False)]
)
def test_a_trial_starts_again_after_a_panic(below: Path, told: str, has_ours: bool) -> None:
    """Less than none is at once (the kernel's documentation), none is never."""
    (below / "boot/grub/grub.cfg").write_text(menu(""))
    frozen(below, text=told)
    said = call(below, "menu_entry trial abc").stdout
    assert ("panic=20" in said) is has_ours


@pytest.mark.parametrize(
    ("superusers", "options", "asks"), [(False, "", False), (True, "", True), (True, " --unrestricted", False)]
)
def test_an_entry_that_asks_for_a_password_is_refused(below: Path, superusers: bool, options: str, asks: bool) -> None:
    text = menu(options)
    (below / "boot/grub/grub.cfg").write_text(f'set superusers="root"\n{text}' if superusers else text)
    done = call(below, f"asks {RELEASE}")
    assert (done.returncode == 0) == asks, done.stderr


#: What others make of the menu: open, guarded with entries that start without a password, guarded with all of them.
BARE = menu("")
GUARDED = f'set superusers="root"\n{menu(" --unrestricted")}'
LOCKED = f'set superusers="root"\n{menu("")}'


def make_menu(below: Path, before: str, after: str) -> subprocess.CompletedProcess[str]:
    """Let the program replace grub.cfg, and say `asks` after each file behind which GRUB asks for a password."""
    live = below / "boot/grub/grub.cfg"
    live.write_text(before)
    frozen(below, text="root=UUID=1 ro")
    for name in ("vmlinuz", "initrd.img"):
        (below / "boot/rtinfra/abc" / name).write_text("x")
    (below / "etc/apt/apt.conf.d").mkdir(parents=True)
    (below / "next.cfg").write_text(after)
    program(below, "grub-mkconfig", f'cat {below}/next.cfg >"$2"')
    program(below, "grub-script-check", 'test -s "$1"')
    kept = below / "boot/grub/rtinfra.cfg"
    look = f"if grep -q superusers {live} && ! grep -q unrestricted {kept}; then echo asks; fi"
    return call(below, f'point abc; mv() {{ command mv "$@"; {look}; }}; menu')


@pytest.mark.parametrize(
    ("before", "after"),
    [(BARE, GUARDED), (GUARDED, BARE), (GUARDED, GUARDED), (BARE, BARE), (BARE, menu(" --unrestricted"))],
)
def test_a_new_menu_never_asks_for_a_password_before_the_kept_entry(below: Path, before: str, after: str) -> None:
    """Others guard their menu and leave its making to a deploy, whose power fails anywhere (seen on a machine)."""
    done = make_menu(below, before, after)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (below / "boot/grub/grub.cfg").read_text() == after
    assert ("--unrestricted" in (below / "boot/grub/rtinfra.cfg").read_text()) == ("--unrestricted" in after)


def test_a_new_menu_that_would_ask_for_a_password_is_refused(below: Path) -> None:
    done = make_menu(below, BARE, LOCKED)
    assert done.returncode == 1
    assert "GRUB would ask for a password" in done.stderr
    assert (below / "boot/grub/grub.cfg").read_text() == BARE
    assert not list((below / "boot/grub").glob("grub.cfg.*"))


@pytest.mark.parametrize(
    ("address", "has"),
    [
        ("", True),
        # The end of a tunnel.
        ("127.0.0.1", True),
        ("::1", True),
        ("192.0.2.7", True),
        ("192.0.2.70", False),
        ("fe80::5054:ff:fe12:3456%eth0", True),
        ("fe80::1%eth0", False),
        # The near end of a point-to-point line; the far one is not this host's.
        ("198.51.100.1", True),
        ("198.51.100.2", False),
    ],
)
def test_the_way_in_of_a_trial(below: Path, address: str, has: bool) -> None:
    shown = (
        "2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0\\n"
        "2: eth0    inet6 fe80::5054:ff:fe12:3456/64 scope link \\n"
        "3: ppp0    inet 198.51.100.1 peer 198.51.100.2/32 scope global ppp0\\n"
    )
    done = call(below, f"ip() {{ printf '{shown}'; }}\nhas_address '{address}'")
    assert (done.returncode == 0) == has, done.stderr


def test_what_runs_is_kept_word_by_word(below: Path) -> None:
    (below / "cmdline").write_text("BOOT_IMAGE=/vmlinuz root=UUID=1 a;b memmap=96M$0x38 rtinfra.trial=abc panic=20\n")
    done = call(below, f'remember {below}/boot/rtinfra/abc "$(sed s/^/x/ {below}/cmdline | grub_words text)"')
    assert done.returncode == 0, done.stderr
    assert (below / "boot/rtinfra/abc/words").read_text().split()[2:4] == ["a;b", "memmap=96M$0x38"]
    assert r"a\;b memmap=96M\$0x38" in (below / "boot/rtinfra/abc/text").read_text()


def test_the_watchdog_is_fed_until_the_root_file_system_is_there(tmp_path: Path) -> None:
    """A passphrase that somebody comes to type, a check of a large disk: half an hour here, at five seconds a turn."""
    (tmp_path / "dev").mkdir()
    for name in ("null", "watchdog0"):
        (tmp_path / "dev" / name).symlink_to("/dev/null")
    (tmp_path / "sys/class/watchdog/watchdog0").mkdir(parents=True)
    script = render(
        "rt_kernel/watchdog-init.sh.j2",
        module="",
        identity="",
        link=f"{tmp_path}/dev/link",
        feeder=f"{tmp_path}/feeder",
    ).decode()
    script = re.sub(r"(?<![A-Za-z0-9_.}])/(dev|sys)/", rf"{tmp_path}/\1/", script)
    turn = f"turns=$((turns + 1)); [ $turns -lt 360 ] || rm {tmp_path}/dev/null; echo >>{tmp_path}/fed"
    turns = f"turns=0; sleep() {{ {turn}; }}"
    assert subprocess.run(["sh", "-c", f"{turns}\n{script}\nwait"], timeout=60, check=False).returncode == 0
    assert len((tmp_path / "fed").read_text()) == 360
