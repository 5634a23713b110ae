"""Keys of the mirror at its clients: what was given up stays so, and a key file is keys alone."""

from __future__ import annotations

import pytest
from pyinfra.api.exceptions import OperationError

from roles.mirror_client import role as client
from rtinfra.facts import mirror as facts
from rtinfra.facts.mirror import parse_mirror_state
from rtinfra.operations.resources import File
from tests.unit.mirror_fleet import FINGERPRINT, KEY_TEXT, PLACE
from tests.unit.test_operations_mirror import ASIDE, OURS, RECORD, SERVING, SETTLED, found, pointed

OTHER = "A" * 40
GIVEN_UP = f"@@refused\n# Keys\nbundle SHA256:{'a' * 43} 2026-01-01\nrepository {{}} 2026-01-01"


def test_what_the_mirror_gave_up_is_remembered_by_its_clients() -> None:
    """A file for each key, which is there on a settled client and no other change."""
    state = parse_mirror_state([*SERVING.splitlines(), *GIVEN_UP.format(OTHER).splitlines()])
    assert state.refused == (OTHER,)
    paths = client.files(PLACE, False, state)
    remembered = [path for path in paths if path.path == f"{facts.REFUSED}/{OTHER}"]
    assert len(remembered) == 1
    assert remembered[0].path not in client.paths(PLACE), "going back leaves it"
    assert not facts.REFUSED.startswith(facts.CLIENT_STATE), "which is removed then"
    told = SERVING + "\n" + GIVEN_UP.format(OTHER) + "\n"
    assert pointed(told + found(*OURS, RECORD, more=ASIDE)) == ["<sync.sh with the files that differ>"]
    assert pointed(told + found(*[path for path in paths if isinstance(path, File)], RECORD, more=ASIDE)) == []


def test_a_release_of_a_key_that_was_given_up_is_refused_before_anything_changes() -> None:
    on_the_mirror = SERVING + "\n" + GIVEN_UP.format(FINGERPRINT) + "\n" + found(more=ASIDE)
    on_the_client = SERVING + "\n" + found(File(path=f"{facts.REFUSED}/{FINGERPRINT}", content=b""), more=ASIDE)
    for answer in (on_the_mirror, on_the_client):
        with pytest.raises(OperationError, match=f"is signed by the key {FINGERPRINT}, which was given up"):
            pointed(answer)


@pytest.mark.parametrize("text", ["mDMEZ", KEY_TEXT.replace("PUBLIC", "PRIVATE"), f"more\n{KEY_TEXT}"])
def test_a_key_file_of_the_mirror_with_anything_else_in_it_is_refused(text: str) -> None:
    with pytest.raises(OperationError, match="the key of release"):
        pointed(SETTLED.replace(KEY_TEXT, text))
