"""Which archive is taken out of a machine's apt configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.local import archive
from rtinfra.local.archive import Archive, Source, parse_authorities, parse_logins, read_logins
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
    assert found.authorities == (("", Path("/etc/ours.pem")),)


def test_environment_overrules_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_apt_config", lambda: "")
    environment = {archive.ARCHIVE_VARIABLE: "http://a.example/d", archive.SECURITY_VARIABLE: "http://s.example/d"}
    found = archive.discover(tmp_path, environment)
    assert (found.main, found.security) == (("http://a.example/d",), ("http://s.example/d",))


def test_an_archive_on_a_local_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be reached"):
        archive.discover(tmp_path, {archive.ARCHIVE_VARIABLE: "file:/srv/debian"})


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


def test_logins_are_read_in_apts_order_and_shown_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "auth.conf").write_text(
        "# machine no.example login a password b\nmachine a.example\n login me\n password s1x\n"
    )
    (tmp_path / "auth.conf.d").mkdir()
    (tmp_path / "auth.conf.d" / "90ubuntu.conf").write_text(
        "machine esm.example/apps/ubuntu/ login bearer password s2x\n"
        "machine https://b.example:8443 password s3x login x\n"
    )
    (tmp_path / "auth.conf.d" / "ignored").write_text("machine c.example login me password four\n")
    found = read_logins(tmp_path)
    assert [(one.scheme, one.host, one.port, one.path, one.name, one.password) for one in found] == [
        ("", "a.example", None, "", "me", "s1x"),
        ("", "esm.example", None, "/apps/ubuntu/", "bearer", "s2x"),
        ("https", "b.example", 8443, "", "x", "s3x"),
    ]
    assert not any(word in repr(found) for word in ("s1x", "s2x", "s3x"))
    assert read_logins(tmp_path / "nothing") == ()


@given(
    st.text()
    | st.lists(st.sampled_from(["machine", "login", "password", "a.example", "http://b:x/", "[", "\n"])).map(" ".join)
)
def test_no_file_of_logins_is_too_odd(text: str) -> None:
    assert all(login.host for login in parse_logins(text))


def test_authorities_are_those_of_apt() -> None:
    dump = 'Acquire::https "";\nAcquire::https::CaInfo "/etc/ssl/ours.pem";\n'
    dump += 'acquire::https::a.example::cainfo "/etc/a.pem";\n'
    assert dict(parse_authorities(dump)) == {"": Path("/etc/ssl/ours.pem"), "a.example": Path("/etc/a.pem")}
    assert parse_authorities('Acquire::https::CaInfo "";\nAcquire::https::Proxy "x";\n') == ()
