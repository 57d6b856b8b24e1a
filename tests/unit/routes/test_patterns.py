"""``--metrics-route``: which paths a pattern matches, what is refused, and where patterns are read from."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from promgun.routes.patterns import RoutePatterns, expression, read_patterns

MATCHES = [
    ("/users/{id}", ["/users/5", "/users/ä b"], ["/users/", "/users/5/", "/users/5/x", "/x/users/5"]),
    ("/", ["/"], ["", "//"]),
    ("/a.b/{x:int}", ["/a.b/07"], ["/a.b/x", "/a-b/7", "/a.b/-7"]),
    ("/price/{x:float}", ["/price/1", "/price/1.5"], ["/price/.5", "/price/1."]),
    ("/by/{x:uuid}", ["/by/8b0b5a44-7a5f-4b57-9f2e-0c7c2b9b1f10"], ["/by/8b0b5a44", "/by/"]),
    ("/files/{path:path}", ["/files/", "/files/a/b\nc"], ["/files"]),
    ("/{name}.{kind}", ["/a.txt", "/a.tar.gz"], ["/a", "/.txt", "/a."]),
    ("/{path:path}-v{n}", ["/a-v1", "/a/b-v1-v2", "/a-v1-2"], ["/a-v", "/a-v/", "/a"]),
    ("/{path:path}-{a}.{b}", ["/a-b.c", "/a/b-c-d.e"], ["/a-b", "/a-b.c-d", "/a-b.c/d"]),
    ("/{path:path}/edit/{id:int}", ["/a/b/edit/7", "//edit/7"], ["/a/edit/x"]),
]
REFUSED = {
    "users": "does not begin with a slash",
    "": "does not begin with a slash",
    "/{id": "a brace without its other",
    "/id}": "a brace without its other",
    "/{}": "a parameter whose name is none",
    "/{1}": "a parameter whose name is none",
    "/{a}/{a}": "two parameters of one name",
    "/{a:hex}": "a type other than str, int, float, uuid, path",
    "/{a:}": "a type other than",
    "/{a}{b}": "two parameters without text between them",
    "/{a:path}/{b:path}": "more than one parameter of the type path",
    "/a\x00": "cannot be printed",
    "/{a:int}1{b:int}": "a number before a digit",
    "/{a:float}0": "a number before a digit",
    "/{a:path}1{b:int}": "a number behind a path and a digit",
    "/users/<int:id>": "angle brackets; parameters are written {name}",
}


@pytest.mark.parametrize(("pattern", "good", "bad"), MATCHES)
def test_a_pattern_matches_a_whole_path(pattern: str, good: list[str], bad: list[str]) -> None:
    patterns = RoutePatterns([pattern])
    assert [patterns.match(path) for path in good] == [pattern] * len(good)
    assert [patterns.match(path) for path in bad] == [""] * len(bad)


def test_the_first_that_matches_is_the_route() -> None:
    patterns = RoutePatterns(["/users/me", "/users/{id:int}", "/users/{name}"])
    paths = ["/users/me", "/users/5", "/users/x"]
    assert [patterns.match(path) for path in paths] == ["/users/me", "/users/{id:int}", "/users/{name}"]


def test_what_cannot_be_used_is_refused_with_the_reason() -> None:
    for pattern, reason in REFUSED.items():
        with pytest.raises(ValueError, match=reason) as error:
            read_patterns([pattern])
        assert repr(pattern) in str(error.value)


def test_a_file_has_one_pattern_a_line(tmp_path: Path) -> None:
    file = tmp_path / "routes"
    file.write_text("# comment\n\n/a/{x}\n  /b \n")
    assert read_patterns([f"@{file}", "/c"]) == ("/a/{x}", "/b", "/c")
    assert read_patterns("/c") == ("/c",)
    assert read_patterns(None) == ()
    file.write_bytes(b"\xff")
    for wrong in ([f"@{file}"], [f"@{tmp_path}"], [7], 7):
        with pytest.raises(ValueError, match=r"cannot read routes|a route is text"):
            read_patterns(wrong)


def test_no_path_is_costly() -> None:
    """Each pattern matches in one way only, or nearly, and very long paths match nothing."""
    many = RoutePatterns([f"/{{a:path}}/{{b}}-{{c}}/x{number}" for number in range(20)])
    texts = ("/", "-", "a-/", "a", "x", "-.")
    long = [RoutePatterns([pattern]) for pattern in ("/{a:path}-{b}", "/{a:path}x{b}y", "/{a:path}-{b}.{c}")]
    start = time.thread_time()
    for patterns in (many, *long):
        for text in texts:
            for size in (1_000, 4_000, 100_000):
                assert patterns.match("/" + (text * size)[:size] + "/") == ""
    assert time.thread_time() - start < 0.2


def test_matching_takes_time_in_proportion_to_the_path() -> None:
    """Without the limit on its length: 20,000 characters would take seconds if each were looked at from each other."""
    expressions = [re.compile(expression(pattern), re.DOTALL) for pattern, _, _ in MATCHES]
    texts = ("-{a}-{b}", "-{a}.{b}.{c}", "x{a:int}y{b}")
    expressions += [re.compile(expression(f"/{{p:path}}{text}")) for text in texts]
    start = time.thread_time()
    for text in ("-a.", "-a-", "-.", "/a-b.", "x1y", ".1", "-", "a", "/"):
        for compiled in expressions:
            assert not compiled.fullmatch("/" + text * (20_000 // len(text)) + "-/\n")
    assert time.thread_time() - start < 1
