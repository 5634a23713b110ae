"""Files in folders that another account owns: read with its rights alone, within bounds, and never through a link.

Root would follow the links of that account, and wait for its pipes. What the files hold stays that account's words.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

#: Behind find(1) whose records end with NUL: one line for each, whatever stands in the names that others gave.
ONE_LINE_EACH: Final = r"tr '\n\0' ' \n'"
_SECONDS: Final = 5
#: Bytes that are read at most of a checkpoint, and of the end of a log.
MOST_OF_A_FILE: Final = 1 << 20
MOST_OF_AN_END: Final = 1 << 16
_READER: Final = r"""
sub part {
    my ($name, $most, $is_end) = @_;
    sysopen my $file, $name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK or return "";
    my @is = stat $file;
    S_ISREG($is[2]) or return "";
    sysseek $file, $is[7] - $most, 0 if $is_end && $is[7] > $most;
    sysread $file, my $text, $most;
    return $text;
}
chdir shift or exit;
"""


def newest(directory: str, prefix: str) -> str:
    """Return a command that prints the newest JSON file with a prefix."""
    program = rf"""
        my ($newest, $written);
        opendir my $folder, "." or exit;
        for (readdir $folder) {{
            my @is = lstat or next;
            /^{prefix}.*\.json\z/s && S_ISREG($is[2]) or next;
            ($newest, $written) = ($_, $is[9]) if !defined $written || $is[9] > $written;
        }}
        print part($newest, {MOST_OF_A_FILE}), "\n" if defined $newest;
    """
    return _as_owner(directory, program)


def last_lines(directory: str, names: Sequence[str]) -> str:
    """Return a command that prints the last line of each file."""
    program = rf"""
        for (@ARGV) {{
            my @lines = split /\n/, part($_, {MOST_OF_AN_END}, 1);
            print "$lines[-1]\n" if @lines;
        }}
    """
    return f"{_as_owner(directory, program)} {shlex.join(names)}"


def _as_owner(directory: str, program: str) -> str:
    place = shlex.quote(directory)
    return (
        f'timeout -k 1 {_SECONDS} setpriv --reuid "$(stat -c %u {place})" --regid "$(stat -c %g {place})" '
        "--clear-groups "
        f"perl -MFcntl=:DEFAULT,:mode -e {shlex.quote(_READER + program)} {place}"
    )
