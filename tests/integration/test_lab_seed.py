"""The disk with what an operator's image is told, read back by programs that know such file systems."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rtinfra.lab import seed
from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter

CONTENTS = {"user-data": "#cloud-config\n{}\n", "meta-data": "{}\n"}


def test_the_disk_is_a_file_system_with_the_name_that_is_looked_for(tmp_path: Path) -> None:
    programs.ensure([Tool("mformat", "mtools")], ConsoleReporter())
    disk = tmp_path / "seed.img"
    seed.write(disk, CONTENTS)
    assert disk.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [disk]
    label = subprocess.run(["mlabel", "-s", "-i", disk, "::"], capture_output=True, text=True, check=True).stdout
    assert label.split()[-1] == "CIDATA"
    for name, content in CONTENTS.items():
        read_back = subprocess.run(["mtype", "-i", disk, f"::{name}"], capture_output=True, text=True, check=True)
        assert read_back.stdout == content
