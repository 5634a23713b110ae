"""The reader of GRUB's language, which boot.sh and the look at a host share. GRUB itself is asked in tests/e2e."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtinfra.facts.boot import Boot
from rtinfra.paths import PROJECT
from rtinfra.render import render

READER = PROJECT / "templates" / "rt_kernel" / "grub-words.pl"


def read(verb: str, text: str) -> str:
    """Return what the reader says, without the line break at its end."""
    done = subprocess.run(
        ["perl", "-w", str(READER), verb], input=text, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("told", "kernel"),
    [
        (r"root=UUID=1 ro quiet", "root=UUID=1 ro quiet"),
        # The kernel's documentation: GRUB must escape it.
        (r"memmap=96M\$0x38000000", "memmap=96M$0x38000000"),
        # Not escaped it is a variable: what the fault's report saw.
        (r"memmap=96M$0x38000000 ro", "memmap=96M${0}x38000000 ro"),
        (r"a=\;b a=';b' " + r'a=";b"', "a=;b a=;b a=;b"),
        (r'"dyndbg=file x.c +p" c=1', '"dyndbg=file x.c +p" c=1'),
        (r"'d=e f'", '"d=e f"'),
        (r"q=\"x\' w=\\x41 b=\\c", r"q=\"x\' w=\\x41 b=\\c"),
        # A backslash in double quotes escapes three characters only.
        (r'a="\$b \" \n"', r'"a=$b \" \\n"'),
        ("quiet splash $vt_handoff", "quiet splash"),
        ("a ; reboot", "a"),
        ("a # b", "a"),
        ("a#b", "a#b"),
    ],
)
def test_what_the_kernel_gets(told: str, kernel: str) -> None:
    assert read("words", told) == kernel


@pytest.mark.parametrize(
    "kernel",
    [
        "root=UUID=1 memmap=96M$0x38",
        r"a;b c|d e&f g<h> {i} #j k`l` m*n?[o] p~q!r(s)",
        '"dyndbg=file x.c +p" ro',
        r"a=\\x41",
    ],
)
def test_what_runs_is_written_so_that_it_runs_again(kernel: str) -> None:
    told = read("text", kernel)
    assert read("words", told) == kernel


# What GRUB can pass on: any words without blanks, quotes and backslashes, which it passes on escaped.
WORDS = st.lists(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S"), exclude_characters="\"'\\"), min_size=1),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)  # each example starts two programs
@given(WORDS)
def test_any_word_comes_back(words: list[str]) -> None:
    line = " ".join(words)
    assert read("words", read("text", line)) == line


def test_what_no_grub_passes_on_is_refused() -> None:
    """A quote within a word without a backslash: another boot loader's, or typed where GRUB does not read."""
    done = subprocess.run(["perl", str(READER), "text"], input='a="b c"', capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "GRUB cannot pass on this command line as it is" in done.stderr


MENU = r"""
set tuned_params="isolcpus=1 foo"
function gfxmode {
	if [ "${1}" = "keep" ]; then
		set vt_handoff=vt.handoff=7
	else
		set vt_handoff=
	fi
}
menuentry 'x' {
	linux	/vmlinuz-6.12-rt root=UUID=1 ro memmap=96M\$0x38000000 $vt_handoff $tuned_params $kernelopts
	initrd	/initrd.img-6.12-rt
}
menuentry 'x, recovery' {
	linux	/vmlinuz-6.12-rt root=UUID=1 ro single
}
"""


def test_a_look_at_a_host_knows_what_variables_may_bring(tmp_path: Path) -> None:
    (tmp_path / "grub.cfg").write_text(MENU)
    (tmp_path / "grubenv").write_text("# GRUB Environment Block\nkernelopts=quiet\n####")
    fact = Boot()
    command = str(fact.command(image_pattern="*-rt")).replace("/boot/grub/grub", f"{tmp_path}/grub")
    command = command.replace("/boot/vmlinuz-", f"{tmp_path}/vmlinuz-")
    for name in ("vmlinuz-6.12-rt", "vmlinuz-6.12-rt.old", "vmlinuz-6.12-rt.dpkg-bak"):
        (tmp_path / name).touch()
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout.splitlines()
    state = fact.process([line.replace(f"{tmp_path}/", "/boot/") for line in said])
    assert state.newest == "6.12-rt"
    assert state.next_parameters == ("root=UUID=1", "ro", "memmap=96M$0x38000000")
    assert state.next_variables == (
        *("vt_handoff=", "vt_handoff=vt.handoff=7"),
        "tuned_params=isolcpus=1 foo",
        "kernelopts=quiet",
    )


@pytest.mark.parametrize("others", ["nohz-full=1-3", "'nohz-full=1-3'", "nohz_full=1", "isolcpus"])
def test_ours_overrule_others_however_they_are_spelt(others: str) -> None:
    """To the kernel a dash in a name is an underscore."""
    ours = ("isolcpus=managed_irq,2-3", "nohz_full=2-3")
    drop_in = render("rt_kernel/grub.cfg.j2", parameters=ours, names=[word.partition("=")[0] for word in ours]).decode()
    show = 'printf "%s|%s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    script = f'GRUB_CMDLINE_LINUX="quiet {others} ro"\n{drop_in}\n{show}'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said == "quiet ro |isolcpus=managed_irq,2-3 nohz_full=2-3"
