"""CPU lists, masks, topology and the split into isolated and housekeeping."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtinfra.cpu import (
    MAX_CPUS,
    CpuLayout,
    CpuListError,
    NeedsTopology,
    Topology,
    check_layout_offline,
    check_node_binding,
    cpu_mask,
    format_cpu_list,
    format_cpu_mask,
    parse_cpu_list,
    parse_cpu_mask,
    resolve_layout,
)

# A busy machine is slow, not wrong.
steady = settings(deadline=None)

FOUR = frozenset(range(4))

cpu_sets = st.frozensets(st.integers(0, MAX_CPUS - 1), max_size=60)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Hosts of all shapes, some with CPUs offline, as after `nosmt` or a hot-unplug."""
    threads = draw(st.sampled_from([1, 2, 4]))
    cores = draw(st.integers(1, 8))
    full = Topology.flat(cores * threads, nodes=draw(st.integers(1, min(cores, 3))), threads=threads)
    offline = draw(st.frozensets(st.integers(1, cores * threads - 1), max_size=3)) if cores > 1 else frozenset()
    return Topology(full.online - offline, full.siblings, full.nodes)


# --- lists


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", {2}),
        ("0-2", {0, 1, 2}),
        ("0,2-3", {0, 2, 3}),
        ("3,1,1-2", {1, 2, 3}),
        (" 0 , 2-3\n", {0, 2, 3}),
        ("08", {8}),
        ("0-7:2/4", {0, 1, 4, 5}),
        ("1-7:1/3", {1, 4, 7}),
        ("2-N", {2, 3, 4, 5, 6, 7, 8}),
        ("N", {8}),
        ("N-N", {8}),
        ("all", set(range(9))),
        ("ALL", set(range(9))),
        ("all:1/4", {0, 4, 8}),
    ],
)
def test_kernel_grammar_is_expanded(text: str, expected: set[int]) -> None:
    assert parse_cpu_list(text, frozenset(range(9))) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("3-2", "did you mean 2-3?"),
        ("N-2", "did you mean 2-N?"),
        ("4-N", r"4-N is empty on a host whose last CPU is 3 \(N = 3\); did you mean 2-3 or 3\?"),
        ("2-5", r"CPUs 4-5 are not online on this host \(online: 0-3\); did you mean 2-3\?"),
        ("7", "CPU 7 is not online.*choose from 0-3"),
        ("1,,3", "nothing between two commas; did you mean 1,3?"),
        ("2\u20133", "did you mean 2-3?"),
        ("2 3", "did you mean 2,3?"),
        ("[2, 3]", "did you mean 2,3?"),
        ("2..3", "did you mean 2-3?"),
        ("2-n", "did you mean 2-N?"),
        ("two", 'for example "1,2-3"'),
        ("-1", "not a CPU number"),
        ("0-3:3/2", "uses 3 of every 2"),
        ("0-3:1/0", "selects nothing"),
        ("0-3:0/2", "selects nothing"),
        ("2:1/2", "for example 2-N:1/2"),
        ("8192", "beyond 8191"),
        ("0-99999999999999999999", "beyond 8191"),
        ("1" * 5000, "beyond 8191"),
        ("0," * MAX_CPUS * 3 + "0", "longer than"),
        ("\u00b2", "not a CPU number"),
    ],
)
def test_bad_lists_are_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(CpuListError, match=words):
        parse_cpu_list(text, FOUR)


def test_one_cpu_host_gets_a_suggestion_that_exists() -> None:
    with pytest.raises(CpuListError, match=r"did you mean 0\?"):
        parse_cpu_list("1-N", frozenset({0}))


def test_offline_cpus_inside_a_range_are_refused() -> None:
    with pytest.raises(CpuListError, match=r"CPU 2 is not online.*did you mean 1,3"):
        parse_cpu_list("1-3", frozenset({0, 1, 3}))
    assert parse_cpu_list("all", frozenset({0, 1, 3})) == {0, 1, 3}


def test_without_a_host_only_explicit_lists_expand() -> None:
    assert parse_cpu_list("2-3,8", None) == {2, 3, 8}
    for text in ("2-N", "all", "0,N"):
        with pytest.raises(NeedsTopology):
            parse_cpu_list(text, None)
    with pytest.raises(CpuListError) as caught:
        parse_cpu_list("N,x", None)
    assert not isinstance(caught.value, NeedsTopology), "what is wrong everywhere must not wait for a host"


def test_no_online_cpus_is_an_error_not_a_crash() -> None:
    with pytest.raises(CpuListError, match="no online CPUs"):
        parse_cpu_list("0", frozenset())


@steady
@given(cpu_sets.filter(bool))
def test_format_and_parse_are_inverse(cpus: frozenset[int]) -> None:
    text = format_cpu_list(cpus)
    assert parse_cpu_list(text, None) == cpus
    assert parse_cpu_list(text, cpus) == cpus


@steady
@given(cpu_sets.filter(bool))
def test_canonical_lists_have_no_adjacent_elements(cpus: frozenset[int]) -> None:
    bounds = [[int(bound) for bound in part.split("-")] for part in format_cpu_list(cpus).split(",")]
    for left, right in pairwise(bounds):
        assert right[0] > left[-1] + 1


def test_empty_set_has_an_empty_list() -> None:
    assert format_cpu_list(()) == ""


@steady
@given(
    st.text() | st.text(alphabet="0123456789-,:/Nal \n"),
    st.none() | st.frozensets(st.integers(0, 20), max_size=8),
)
def test_parser_raises_nothing_but_its_own_error(text: str, online: frozenset[int] | None) -> None:
    try:
        cpus = parse_cpu_list(text, online)
    except CpuListError as error:
        assert error.reason
    else:
        assert cpus
        assert online is None or cpus <= online


# --- masks


@pytest.mark.parametrize(
    ("cpus", "mask"),
    [
        ((), "0"),
        ((0,), "1"),
        ((2, 3), "c"),
        ((31,), "80000000"),
        ((32,), "1,00000000"),
        ((0, 64), "1,00000000,00000001"),
    ],
)
def test_masks_are_in_the_kernels_format(cpus: tuple[int, ...], mask: str) -> None:
    assert format_cpu_mask(cpus) == mask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000,0000000c\n", {2, 3}),
        ("ffffffff", set(range(32))),
        ("F", {0, 1, 2, 3}),
        ("1,1", {0, 32}),
        ("100000001", {0, 32}),
        ("0", set()),
    ],
)
def test_masks_of_kernel_and_taskset_are_read(text: str, expected: set[int]) -> None:
    assert parse_cpu_mask(text) == expected


@pytest.mark.parametrize("text", ["", "g", "0x3", "1,,1", "1,123456789", "-1", "f" * 3000])
def test_bad_masks_are_refused(text: str) -> None:
    with pytest.raises(CpuListError):
        parse_cpu_mask(text)


@steady
@given(cpu_sets)
def test_mask_round_trip(cpus: frozenset[int]) -> None:
    assert parse_cpu_mask(format_cpu_mask(cpus)) == cpus
    assert parse_cpu_mask("00000000," + format_cpu_mask(cpus).rjust(8, "0")) == cpus or len(cpus) == 0
    assert cpu_mask(cpus).bit_count() == len(cpus)


# --- topology


def test_flat_topology_is_numbered_like_x86() -> None:
    host = Topology.flat(8, nodes=2, threads=2)
    assert host.siblings[2] == {2, 6}
    assert host.nodes == {0: {0, 1, 4, 5}, 1: {2, 3, 6, 7}}
    assert host.node_of(6) == 1
    assert host.core_count({2, 6, 3}) == 2
    assert [min(core) for core in host.cores] == [0, 1, 2, 3]


@pytest.mark.parametrize(("n", "nodes", "threads"), [(3, 1, 2), (2, 3, 1), (4, 0, 1)])
def test_impossible_topologies_are_refused(n: int, nodes: int, threads: int) -> None:
    with pytest.raises(ValueError, match="cannot form"):
        Topology.flat(n, nodes, threads)


def test_kernel_without_numa_has_one_node() -> None:
    host = Topology(FOUR, {}, {})
    assert host.node_of(3) == 0
    assert host.core_count(FOUR) == 4, "a CPU without sibling data is a core of its own"
    with pytest.raises(KeyError):
        host.node_of(4)


def test_a_host_without_cpus_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Topology(frozenset(), {}, {})


# --- layout


def found(isolated: str, housekeeping: str | None, topology: Topology) -> list[tuple[str, str, str]]:
    layout, findings = resolve_layout(isolated, housekeeping, topology)
    assert (layout is None) == any(finding.severity == "error" for finding in findings)
    return [(finding.key, finding.reason, finding.suggestion or "") for finding in findings]


def test_the_usual_layout() -> None:
    layout, findings = resolve_layout("2-N", None, Topology.flat(4))
    assert findings == []
    assert layout is not None
    assert (layout.isolated_list, layout.housekeeping_list) == ("2-3", "0-1")
    assert layout.housekeeping_mask == "3"


def test_a_list_that_the_host_empties_is_refused() -> None:
    ((key, reason, suggestion),) = found("4-N", None, Topology.flat(4))
    assert key == "cpu.isolated"
    assert "N = 3" in reason
    assert suggestion == "did you mean 2-3 or 3?"


def test_both_lists_are_reported_at_once() -> None:
    assert [key for key, _, _ in found("9", "x", Topology.flat(4))] == ["cpu.isolated", "cpu.housekeeping"]


def test_overlap_and_gap_are_reported_at_once() -> None:
    overlap, gap = found("3-4", "0-1,3,5", Topology.flat(6))
    assert overlap == (
        "cpu.housekeeping",
        "CPU 3 is in cpu.isolated (3-4) too",
        "use 0-2,5, or remove the key: all CPUs that are not isolated are the default",
    )
    assert gap[1] == "CPU 2 is online, but neither here nor in cpu.isolated (3-4)"


def test_split_siblings_are_refused_with_the_whole_cores() -> None:
    ((key, reason, suggestion),) = found("2-3", None, Topology.flat(8, threads=2))
    assert key == "cpu.isolated"
    assert "2,6, 3,7" in reason
    assert suggestion == "isolate 2-3,6-7"


def test_housekeeping_is_counted_in_cores_not_threads() -> None:
    # Three of four cores: the two threads that are left are one core only.
    ((_, reason, suggestion),) = found("1-3,5-7", None, Topology.flat(8, threads=2))
    assert reason == "leaves 1 of 4 physical cores for housekeeping; at least 2 are needed"
    assert suggestion == "isolate 2-3,6-7"


def test_a_host_that_is_too_small_gets_no_impossible_suggestion() -> None:
    ((_, reason, suggestion),) = found("1", None, Topology.flat(2))
    assert "leaves 1 of 2" in reason
    assert suggestion == "use a host with more cores"


def test_isolating_cpu_0_is_a_warning() -> None:
    layout, (finding,) = resolve_layout("0-1", None, Topology.flat(4))
    assert layout is not None
    assert (finding.severity, finding.suggestion) == ("warning", "isolate 2-3")


@steady
@given(
    topologies(),
    st.frozensets(st.integers(0, 12), min_size=1),
    st.none() | st.frozensets(st.integers(0, 12), min_size=1),
)
def test_no_bad_layout_is_ever_accepted(
    topology: Topology, isolated: frozenset[int], housekeeping: frozenset[int] | None
) -> None:
    text = None if housekeeping is None else format_cpu_list(housekeeping)
    layout, findings = resolve_layout(format_cpu_list(isolated), text, topology)
    assert (layout is None) == any(finding.severity == "error" for finding in findings)
    if layout is None:
        return
    assert not layout.isolated & layout.housekeeping
    assert layout.isolated | layout.housekeeping == topology.online
    assert layout.isolated == isolated
    assert housekeeping in (None, layout.housekeeping)
    for core in topology.cores:
        assert core <= layout.isolated or core <= layout.housekeeping
    assert topology.core_count(layout.housekeeping) >= 2


@steady
@given(topologies(), st.data())
def test_every_suggested_isolation_is_accepted(topology: Topology, data: st.DataObject) -> None:
    isolated = data.draw(st.frozensets(st.sampled_from(sorted(topology.online)), min_size=1))
    _, findings = resolve_layout(format_cpu_list(isolated), None, topology)
    suggestions = [
        match[1] for finding in findings if (match := re.fullmatch(r"isolate (\S+)", finding.suggestion or ""))
    ]
    assume(suggestions)
    for suggestion in suggestions:
        layout, again = resolve_layout(suggestion, None, topology)
        assert layout is not None, (suggestion, again)


def test_a_layout_cannot_be_built_wrong() -> None:
    host = Topology.flat(4)
    for isolated, housekeeping in (({2}, {2, 3}), (set(), FOUR), (FOUR, set()), ({3}, {0, 1})):
        with pytest.raises(ValueError, match="isolated and housekeeping"):
            CpuLayout(frozenset(isolated), frozenset(housekeeping), host)


# --- without a host


@pytest.mark.parametrize(
    ("isolated", "housekeeping", "count", "keys"),
    [
        ("2-3", None, None, []),
        ("2-N", "0-1", None, []),
        ("2-3", "0-2", None, ["cpu.housekeeping"]),
        ("2-x", "y", None, ["cpu.isolated", "cpu.housekeeping"]),
        ("all", None, None, ["cpu.isolated"]),
        ("2-3", "all", None, ["cpu.housekeeping"]),
        ("0-1", None, None, ["cpu.isolated"]),
        ("4-N", None, 4, ["cpu.isolated"]),
        ("4-N", None, None, []),
        ("1-3", None, 4, ["cpu.isolated"]),
        ("2-3", "0", 4, ["cpu.housekeeping"]),
    ],
)
def test_what_can_be_said_without_a_host(
    isolated: str, housekeeping: str | None, count: int | None, keys: list[str]
) -> None:
    assert [finding.key for finding in check_layout_offline(isolated, housekeeping, count)] == keys


# --- NUMA


def test_cpus_on_their_node_are_fine() -> None:
    assert check_node_binding("k", frozenset({2, 3}), 1, Topology.flat(4, nodes=2)) == []


def test_wrong_node_names_the_right_one() -> None:
    (finding,) = check_node_binding("rt.numa_node", frozenset({2, 3}), 0, Topology.flat(4, nodes=2))
    assert (finding.key, finding.value, finding.suggestion) == ("rt.numa_node", 0, "use 1")
    assert "CPUs 2-3 are on node 1" in finding.reason


def test_missing_node_names_those_that_exist() -> None:
    (finding,) = check_node_binding("k", frozenset({0, 1}), 5, Topology.flat(4, nodes=2), "warning")
    assert finding.severity == "warning"
    assert "no NUMA node 5 (it has 0-1)" in finding.reason
    assert finding.suggestion == "use 0"


def test_cpus_across_nodes_list_the_choices() -> None:
    (finding,) = check_node_binding("k", frozenset({1, 2}), 0, Topology.flat(4, nodes=2))
    assert "CPU 1 is on node 0, CPU 2 is on node 1" in finding.reason
    assert finding.suggestion == "choose CPUs of one node: node 0 has 0-1; node 1 has 2-3"


def with_neighbours(online: int, clusters: list[str], kinds: dict[str, str]) -> Topology:
    """A host of single-threaded cores, with cores that share a second-level cache and kinds of cores."""
    mates = [parse_cpu_list(cluster, None) for cluster in clusters]
    return Topology(
        frozenset(range(online)),
        {},
        {},
        {cpu: cluster for cluster in mates for cpu in cluster},
        {cpu: kind for cpus, kind in kinds.items() for cpu in parse_cpu_list(cpus, None)},
    )


@pytest.mark.parametrize(
    ("isolated", "clusters", "kinds", "told"),
    [
        # Two performance cores, and four efficiency cores that share a cache: as processors with both kinds have it.
        ("3-4", ["4-7"], {"0-3": "performance", "4-7": "efficiency"}, ["mixes kinds", "takes 4 of the cores 4-7"]),
        ("4-5", ["4-7"], {"0-3": "performance", "4-7": "efficiency"}, ["takes 4-5 of the cores 4-7"]),
        ("4-7", ["4-7"], {"0-3": "performance", "4-7": "efficiency"}, []),
        ("2-3", ["4-7"], {"0-3": "performance", "4-7": "efficiency"}, []),
        # One kind, told of some cores only by their capacity; a cache that all share: nobody can choose.
        ("2-3", [], {"0-7": "capacity 1024"}, []),
        ("2-3", ["0-7"], {}, []),
    ],
)
def test_neighbours_of_isolated_cores_are_warned_of(
    isolated: str, clusters: list[str], kinds: dict[str, str], told: list[str]
) -> None:
    layout, findings = resolve_layout(isolated, None, with_neighbours(8, clusters, kinds))
    assert layout is not None, "a warning, no refusal"
    assert [finding.severity for finding in findings] == ["warning"] * len(told)
    assert all(text in finding.reason for text, finding in zip(told, findings, strict=True))
    for finding in findings:
        assert finding.suggestion
