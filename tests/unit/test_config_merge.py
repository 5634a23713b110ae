"""The deep merge: its laws, and that every value remembers who wrote it last."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rtinfra.config.merge import EMPTY, Located, Place, merge, nearest_place
from rtinfra.config.yaml import parse_yaml

# A busy machine is slow, not wrong.
steady = settings(deadline=None)

scalars = st.none() | st.booleans() | st.integers(0, 5) | st.sampled_from("xyz")


def trees(name: str) -> st.SearchStrategy[Located]:
    """Layers as a file `name` could contain them; few keys, so that they collide."""
    places = st.builds(Place, st.just(name), st.integers(1, 9))

    def located(values: st.SearchStrategy[object]) -> st.SearchStrategy[Located]:
        return st.builds(Located, values, places)

    def mappings(children: st.SearchStrategy[Located]) -> st.SearchStrategy[Located]:
        return located(st.dictionaries(st.sampled_from("abc"), children, max_size=3))

    leaves = located(scalars) | located(st.lists(located(scalars), max_size=2).map(tuple))
    return mappings(st.recursive(leaves, mappings, max_leaves=8))


def yaml(text: str, name: str = "f") -> Located:
    return parse_yaml(text, name)


@steady
@given(trees("all"), trees("group"), trees("host"))
def test_merge_is_associative(lower: Located, middle: Located, upper: Located) -> None:
    assert merge(merge(lower, middle), upper) == merge(lower, merge(middle, upper))


@steady
@given(trees("f"))
def test_empty_is_the_identity(tree: Located) -> None:
    assert merge(EMPTY, tree) == tree
    assert merge(tree, EMPTY) == tree


@steady
@given(trees("f"))
def test_merging_a_layer_twice_changes_nothing(tree: Located) -> None:
    assert merge(tree, tree).plain() == tree.plain()


@steady
@given(trees("lower"), trees("upper"))
def test_provenance_is_the_last_writer(lower: Located, upper: Located) -> None:
    merged = merge(lower, upper)
    written = upper.places()
    for key, place in merged.places().items():
        assert place == written.get(key, place)
        assert place.file == ("upper" if key in written else "lower")
    assert written.keys() <= merged.places().keys()


def test_mappings_merge_and_everything_else_replaces() -> None:
    lower = yaml("a: {b: 1, c: [1, 2]}\nd: {e: 1}\nf: 1\n", "lower")
    upper = yaml("a: {c: [3]}\nd: off\nf: {g: 1}\n", "upper")
    merged = merge(lower, upper)
    assert merged.plain() == {"a": {"b": 1, "c": [3]}, "d": "off", "f": {"g": 1}}
    places = merged.places()
    assert str(places["a.b"]) == "lower:1"
    assert str(places["a.c.0"]) == "upper:1"
    assert "a.c.1" not in places


def test_a_section_over_null_does_not_let_lower_layers_through() -> None:
    layers = [yaml("a: {b: 1}\n"), yaml("a: null\n"), yaml("a: {c: 2}\n")]
    assert merge(merge(layers[0], layers[1]), layers[2]).plain() == {"a": {"c": 2}}
    assert merge(layers[0], merge(layers[1], layers[2])).plain() == {"a": {"c": 2}}


def test_keys_that_were_never_written_are_found_at_their_parent() -> None:
    places = yaml("a:\n  b: 1\nsysctl:\n  vm.swappiness: 1\n").places()
    assert str(nearest_place(places, "a.x.y")) == "f:1"
    assert str(nearest_place(places, "sysctl.vm.swappiness")) == "f:4"
    assert str(nearest_place(places, "sysctl.vm.other")) == "f:3"
    assert str(nearest_place(places, "zzz")) == "f:1"
    assert nearest_place({}, "a.b") is None
