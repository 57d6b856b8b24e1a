"""What the emitter writes reads as what it was given."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from promgun.export.emitter import Commented, Node, to_yaml
from tests.support.offenders import offenders
from tests.support.yamls import parse, parse_all

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
SCALARS = TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
#: What a reader of YAML may take for something else.
TRAPS = [
    *(
        "yes",
        "No",
        "on",
        "null",
        "~",
        "y",
        "true",
        "",
        " ",
        "5",
        "0x1f",
        "1e3",
        "1:30",
        "2024-01-01",
        ".5",
        "-",
        "- a",
    ),
    *("a: b", "a #b", "#", "&a", "*a", "!a", "%a", "@a", "`a", "{a}", "[a]", "a,b", "'a'", '"a"', "a\nb", "a\tb"),
    *(
        "<<",
        "=",
        "a:",
        ":a",
        "a:b",
        "5m",
        "1h30m",
        "x" * 200,
        "word " * 40,
        ("word " * 40).strip(),
        "# " + "word " * 40 + "x",
    ),
    *("\x00", "\x85", "\u2028", "\ufeff", "\U0001f600", "\x7f", 'it\'s "both"', "\\", "''"),
]
NODES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, NODES, min_size=1, max_size=4))
def test_anything_reads_as_it_was(document: dict[str, Any]) -> None:
    assert parse(to_yaml(document)) == document


def test_strings_stay_strings() -> None:
    def check(text: str) -> None:
        assert parse(to_yaml({"a": text, "b": [text], text: 1})) == {"a": text, "b": [text], text: 1}

    assert offenders(TRAPS, check) == {}


def test_layout() -> None:
    job: Node = {"name": "web", "empty": [], "none": {}, "ports": [1, 2], "deep": [[1, 2], {"a": "b"}]}
    document: Node = {"jobs": [Commented(job, "Why.\nAnd how.")], "size": Commented("512Mi", "Not more.")}
    assert to_yaml(Commented(document, "Head.")) == (
        "# Head.\n"
        "jobs:\n"
        "  # Why.\n"
        "  # And how.\n"
        "  - name: web\n"
        "    empty: []\n"
        "    none: {}\n"
        "    ports:\n"
        "      - 1\n"
        "      - 2\n"
        "    deep:\n"
        "      - - 1\n"
        "        - 2\n"
        "      - a: b\n"
        "# Not more.\n"
        'size: "512Mi"\n'
    )


def test_a_comment_at_the_head_of_an_item_stands_above_it() -> None:
    text = to_yaml([{"files": Commented(["a"], "Read again.")}])
    assert text == "# Read again.\n- files:\n    - a\n"
    assert parse(text) == [{"files": ["a"]}]


def test_long_text_is_folded_and_quotes_are_few() -> None:
    text = to_yaml({"expr": 'rate(x{job="a"}[5m])', "text": "word " * 30 + "end"})
    assert "expr: 'rate(x{job=\"a\"}[5m])'\ntext: >-\n  word" in text
    assert max(map(len, text.splitlines())) <= 110


def test_documents() -> None:
    documents: list[Node] = [{"a": 1}, Commented({"b": 2}, "Second."), [3]]
    assert parse_all(to_yaml(*documents)) == [{"a": 1}, {"b": 2}, [3]]
