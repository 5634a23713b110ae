"""Which archive is taken out of a machine's apt configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtinfra.local import archive
from rtinfra.local.archive import Archive, Source, parse_transport
from rtinfra.local.errors import LocalError

DEB822 = """\
# the main archive
Types: deb deb-src
# an older state: http://mirror.example/old
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
deb http://mirror.example/debian bookworm main # with a comment
# deb http://mirror.example/commented bookworm main
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/tool.gpg trusted=yes] http://tool.example bookworm main
deb http://mirror.example/debian-security bookworm-security main contrib
"""

MAIN = Source(("http://mirror.example/debian",), ("bookworm",), ("main",))


def apt_directory(tmp_path: Path, **files: str) -> Path:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    for name, text in files.items():
        (parts / name.replace("_", ".")).write_text(text)
    return tmp_path


def test_deb822_gives_enabled_binary_entries() -> None:
    main, security = archive.parse_deb822(DEB822)
    assert main.uris == ("http://mirror.example/debian",)
    assert main.suites == ("bookworm", "bookworm-updates")
    assert main.components == ("main", "contrib")
    assert main.signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert security.suites == ("bookworm-security",)
    assert security.signed_by == main.signed_by


def test_one_line_format_with_options_and_comments() -> None:
    first, tool, security = archive.parse_one_line(ONE_LINE)
    assert first == MAIN
    assert (tool.signed_by, tool.trusted) == ("/etc/apt/keyrings/tool.gpg", True)
    assert security.components == ("main", "contrib")


def test_both_formats_are_read_in_apts_order(tmp_path: Path) -> None:
    directory = apt_directory(tmp_path, b_sources=DEB822, a_list=ONE_LINE, c_save=ONE_LINE)
    (directory / "sources.list").write_text("deb http://first.example/debian bookworm main\n")
    uris = [source.uris[0] for source in archive.read_sources(directory)]
    assert uris[0] == "http://first.example/debian"
    assert len(uris) == 1 + 3 + 2


@pytest.mark.parametrize(
    "foreign",
    [
        Source(("http://tool.example",), ("stable",), ("main",), "/etc/apt/keyrings/tool.gpg"),
        Source(("http://tool.example/debian",), ("bookworm",), ("stable",)),
        Source(("http://tool.example/debian",), ("tool-bookworm",), ("main",)),
    ],
)
def test_archives_of_other_projects_are_not_taken(foreign: Source) -> None:
    security = Source(("http://mirror.example/debian-security",), ("bookworm-security",), ("main",))
    assert archive.choose([foreign, MAIN, security]) == (MAIN, security)


def test_a_mirror_under_another_path_is_known_by_debians_key() -> None:
    mirror = Source(("http://mirror.example/os",), ("bookworm",), ("main",), str(archive.DEBIAN_KEYRING))
    assert archive.choose([mirror]) == (mirror, None)


def test_no_debian_archive_is_a_clear_error() -> None:
    with pytest.raises(LocalError) as caught:
        archive.choose([])
    assert "no Debian archive" in caught.value.message
    assert "RTINFRA_LAB_ARCHIVE" in caught.value.next_step


def test_discover_reads_files_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = 'Acquire::Check-Date "false";\nAcquire::https::CaInfo "/etc/ours.pem";\n'
    monkeypatch.setattr(archive, "_apt_config", lambda: dump)
    found = archive.discover(apt_directory(tmp_path, debian_sources=DEB822), {})
    assert found.main == ("http://mirror.example/debian",)
    assert found.security == ("http://mirror.example/debian-security",)
    assert found.keyring == archive.DEBIAN_KEYRING
    # The guest has another file system.
    assert found.options == (("Acquire::Check-Date", "false"),)
    assert found.transport == (("Acquire::https::CaInfo", "/etc/ours.pem"),)


def test_environment_overrules_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_apt_config", lambda: "")
    environment = {archive.ARCHIVE_VARIABLE: "http://a.example/d", archive.SECURITY_VARIABLE: "http://s.example/d"}
    found = archive.discover(tmp_path, environment)
    assert (found.main, found.security) == (("http://a.example/d",), ("http://s.example/d",))


def test_an_archive_on_a_local_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be reached"):
        archive.discover(tmp_path, {archive.ARCHIVE_VARIABLE: "file:/srv/debian"})


def test_without_guests_an_archive_may_be_what_apt_alone_understands(tmp_path: Path) -> None:
    environment = {archive.ARCHIVE_VARIABLE: "mirror+file:/etc/apt/mirrors"}
    assert archive.discover(tmp_path, environment, for_guests=False).main == ("mirror+file:/etc/apt/mirrors",)


def test_options_come_from_apt_and_the_proxy_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "apt-config"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'Acquire::Check-Valid-Until \"false\";'\n"
        "echo 'Acquire::Languages:: \"none\";'\n"
        "echo 'Acquire::http::proxy \"http://cache.example:3142\";'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    environment = {
        archive.ARCHIVE_VARIABLE: "http://a.example/d",
        "http_proxy": "http://ignored.example",
        "https_proxy": "http://used.example",
    }
    assert archive.discover(tmp_path, environment).options == (
        ("Acquire::Check-Valid-Until", "false"),
        ("Acquire::http::Proxy", "http://cache.example:3142"),
        ("Acquire::https::Proxy", "http://used.example"),
    )


def test_without_apt_the_error_names_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalError, match="has no apt"):
        archive.discover(tmp_path, {archive.ARCHIVE_VARIABLE: "http://a.example/d"})


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("http://mirror.example/debian", "http://mirror.example/debian"),
        ("http://localhost:3142/debian", "http://10.0.2.2:3142/debian"),
        ("http://user:word@127.0.0.1/debian", "http://user:word@10.0.2.2/debian"),
    ],
)
def test_the_hosts_loopback_has_another_address_in_the_guest(uri: str, seen: str) -> None:
    assert archive.guest_address(uri) == seen


def test_guest_sources_have_all_suites() -> None:
    found = Archive(main=("http://localhost/debian",), security=("http://mirror.example/security",))
    text = archive.guest_sources(found, "trixie")
    main, security = archive.parse_deb822(text)
    assert main.uris == ("http://10.0.2.2/debian",)
    assert main.suites == ("trixie", "trixie-updates")
    assert security.suites == ("trixie-security",)
    assert "http://localhost/debian" in archive.mmdebstrap_source(found, "trixie")


def test_a_foreign_key_goes_into_the_guest() -> None:
    own = Archive(main=("http://mirror.example/os",), keyring=Path("/etc/apt/keyrings/company.asc"), trusted=True)
    text = archive.guest_sources(own, "trixie")
    assert "Signed-By: /etc/apt/keyrings/lab-archive.asc" in text
    assert "Trusted: yes" in text
    assert "Signed-By: /etc/apt/keyrings/company.asc" in archive.mmdebstrap_source(own, "trixie")


def test_guest_options_lead_through_the_hosts_proxy() -> None:
    options = (("Acquire::Check-Date", "false"), ("Acquire::http::Proxy", "http://localhost:3142"))
    text = archive.guest_options(Archive(main=(), options=options))
    assert text == 'Acquire::Check-Date "false";\nAcquire::http::Proxy "http://10.0.2.2:3142";\n'


def test_how_web_servers_are_asked_is_what_apt_says() -> None:
    dump = 'Acquire::https "";\nAcquire::https::CaInfo "/etc/ssl/our own.pem";\nAcquire::Languages "none";\n'
    dump += 'acquire::http::proxy::a.example "DIRECT";\nAcquire::https::a.example::SslCert "/etc/a.pem";\n'
    dump += 'Acquire::http::Proxy "";\n'
    assert dict(parse_transport(dump)) == {
        "Acquire::https::CaInfo": "/etc/ssl/our own.pem",
        "acquire::http::proxy::a.example": "DIRECT",
        "Acquire::https::a.example::SslCert": "/etc/a.pem",
    }
