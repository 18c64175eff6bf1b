"""Pipeline files: strict, and every error names the place."""

from pathlib import Path

import pytest

from stream.errors import ConfigError, GraphError
from stream.pipeline import (
    EdgeSpec,
    OperatorSpec,
    Pipeline,
    SourceSpec,
    build,
    check,
    load,
    play_instead,
    ports_of,
    record_too,
)

GOOD = """
name = "toy"

[[source]]
name = "count"
kind = "toy_members.Count"
params = { n = 100 }

[[operator]]
name = "relay"
kind = "toy_members.Relay"

[[edge]]
from = "count.events"
to = "relay.events"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(text)
    return path


def checked(pipeline: Pipeline, plugins: list[str]) -> None:
    members = build(pipeline, plugins=plugins)
    check(pipeline, {name: ports_of(member) for name, member in members.items()})


def test_a_good_file_builds(tmp_path: Path, toys: list[str]) -> None:
    pipeline = load(written(tmp_path, GOOD))
    checked(pipeline, toys)
    assert pipeline.nodes == ["count", "relay"]
    assert pipeline.edge[0].name == "count.events -> relay.events"


def test_the_same_in_python(tmp_path: Path, toys: list[str]) -> None:
    built = Pipeline(
        name="toy",
        source=[SourceSpec(name="count", kind="toy_members.Count", params={"n": 100})],
        operator=[OperatorSpec(name="relay", kind="toy_members.Relay")],
        edge=[EdgeSpec(source="count.events", target="relay.events")],
    )
    assert built == load(written(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "toy"', 'name = "toy"\nspeed = 3', "unknown field `speed`"),
        ('name = "toy"', "name = 3", "name: Expected `str`, got `int`"),
        ('name = "toy"', "", "missing required field `name`"),
        ('kind = "toy_members.Relay"', "", "operator 'relay' .*missing required field `kind`"),
        ('kind = "toy_members.Relay"', 'kind = "toy_members.Relay"\ncolour = 1', "operator 'relay' .*`colour`"),
        ('from = "count.events"', 'from = "count"', "edge 'count -> relay.events' .*from: Expected `str` matching"),
        ('to = "relay.events"', 'to = "relay.events"\ndelivery = "maybe"', "delivery: Invalid enum value 'maybe'"),
        ('to = "relay.events"', 'to = "relay.events"\nwindow = 0', "window: Expected `int` >= 1"),
        ("[[edge]]", "[[edge", "not TOML"),
        ('kind = "toy_members.Count"', 'kind = "toy_members.Count"\nspeed = "fast"', "source 'count' .*speed"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=words):
        load(written(tmp_path, GOOD.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("n = 100", "m = 100", "source 'count' .*unknown field `m`"),
        ("n = 100", 'n = "many"', r"source 'count' .*params\.n: Expected `int`, got `str`"),
        ("toy_members.Relay", "toy_members.Relais", "operator 'relay': kind 'toy_members.Relais' is no operator"),
        ("toy_members.Relay", "toy_members.Count", "is no operator"),
        ("toy_members.Relay", "stream.nothing.Relay", "No module named 'stream.nothing'"),
        ("toy_members.Relay", "os.system", "outside stream, sources, neurons, plasticity, chip, toy_members"),
        ("toy_members.Relay", "subprocess.Popen", "--plugin"),
    ],
)
def test_wrong_kinds_and_parameters_are_refused(
    tmp_path: Path, toys: list[str], old: str, new: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        checked(load(written(tmp_path, GOOD.replace(old, new))), toys)


def test_a_missing_file_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `hebbstream demo`"):
        load(tmp_path / "nothing.toml")


def relay(name: str, node: str | None = None) -> OperatorSpec:
    return OperatorSpec(name=name, kind="toy_members.Relay", node=node)


def edge(source: str, target: str) -> EdgeSpec:
    return EdgeSpec(source=f"{source}.events", target=f"{target}.events")


COUNT = SourceSpec(name="count", kind="toy_members.Count")


@pytest.mark.parametrize(
    ("operators", "edges", "words"),
    [
        ([relay("a"), relay("a")], [edge("count", "a")], "two members are called 'a'"),
        ([relay("a")], [], "input a.events has no edge"),
        ([relay("a")], [edge("count", "a"), edge("count", "a")], "takes one edge"),
        ([relay("a")], [edge("count", "b")], "there is no 'b'; there are count, a"),
        ([relay("a")], [EdgeSpec(source="count.spikes", target="a.events")], "no output 'spikes'; it has events"),
        ([relay("a")], [EdgeSpec(source="count.events", target="a.spikes")], "no input 'spikes'; it has events"),
        ([relay("a"), relay("b")], [edge("a", "b"), edge("b", "a")], "form a cycle: a -> b -> a"),
        (
            [relay("a", "n"), relay("b", "m"), relay("c", "n")],
            [edge("count", "a"), edge("a", "b"), edge("b", "c")],
            "cycle: node n -> node m -> node n",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    toys: list[str], operators: list[OperatorSpec], edges: list[EdgeSpec], words: str
) -> None:
    with pytest.raises(GraphError, match=words):
        checked(Pipeline(name="p", source=[COUNT], operator=operators, edge=edges), toys)


def test_a_source_can_be_replaced_and_an_output_recorded(tmp_path: Path, toys: list[str]) -> None:
    pipeline = load(written(tmp_path, GOOD))
    record_too(pipeline, "relay.events", str(tmp_path / "r.hbs"), plugins=toys)
    checked(pipeline, toys)
    assert pipeline.edge[-1].name == "relay.events -> recorder-of-relay-events.events"
    play_instead(pipeline, "simulated")
    assert pipeline.source[0].kind == "sources.simulated.SimulatedCamera"
    play_instead(pipeline, str(tmp_path))
    assert pipeline.source[0].kind == "sources.folder.LabelledFolder"
    play_instead(pipeline, str(tmp_path / "p.toml"))
    assert pipeline.source[0].kind == "sources.event_file.EventFile"


@pytest.mark.parametrize(
    ("address", "path", "words"),
    [
        ("relay.events", "", "wanted MEMBER.PORT=FILE"),
        ("nobody.events", "x", "MEMBER one of count, relay"),
        ("relay.spikes", "x", "'relay' has outputs events"),
    ],
)
def test_a_wrong_wish_to_record_is_refused(
    tmp_path: Path, toys: list[str], address: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        record_too(load(written(tmp_path, GOOD)), address, path, plugins=toys)


def test_a_missing_replacement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder; or say 'simulated'"):
        play_instead(load(written(tmp_path, GOOD)), str(tmp_path / "nothing"))


def test_no_source_is_refused() -> None:
    with pytest.raises(GraphError, match="has no source"):
        check(Pipeline(name="p"), {})
