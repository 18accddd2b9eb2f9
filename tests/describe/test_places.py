"""Where files lie."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai.describe.places import Places, is_url, landing_path, path_here, url_parts
from serai.describe.task import Item
from serai.errors import UsageError

HERE = Places("/home/me/run")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("a.txt", "a.txt"),
        ("./data//a.txt", "data/a.txt"),
        ("data/../b/a.txt", "b/a.txt"),
        ("/home/me/run/data/a", "data/a"),
        ("//home/me/run/a", "a"),
        ("../run/a", "a"),
        ("-x", "-x"),
        ("d/", "d"),
    ],
)
def test_what_lies_here_keeps_its_path(path: str, place: str) -> None:
    assert HERE.node_path(path) == place


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        (("a", "./a", "/home/me/run/a"), ("a",)),
        (("d/a", "d", "./d/b"), ("d",)),
        (("d", "da", "/x/d", "/x/da"), ("d", "da", "/x/d", "/x/da")),
        ((), ()),
    ],
)
def test_of_two_names_of_one_place_the_first_is_kept(paths: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert HERE.without_repeats(paths) == left


def test_what_lies_elsewhere_goes_to_inputs() -> None:
    one, two, other = (HERE.node_path(path) for path in ("/data/a.txt", "/data/x/../b.txt", "../a.txt"))
    assert posixpath.dirname(one) == posixpath.dirname(two) != posixpath.dirname(other)
    assert one.startswith("inputs/")
    assert posixpath.basename(two) == "b.txt"
    assert HERE.node_path("/home/me/runaway/a").startswith("inputs/")
    assert one == Places("/elsewhere").node_path("/data/a.txt")  # the same in every run


@pytest.mark.parametrize("path", ["", ".", "/", "..//run", "/home/me/run/"])
def test_what_cannot_be_an_input(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be an input"):
        HERE.node_path(path)


def test_the_root_can_be_the_working_directory() -> None:
    assert Places("/").node_path("/data/a") == "data/a"
    assert Places("/", "out").output_path(Item(("a",)), "out", 1) == "/out/a"


_paths = st.text(st.sampled_from("ab./-é\udc80 "), max_size=14)


@given(_paths, st.sampled_from(["/", "/a", "/a/b.b", "/é"]))
def test_an_input_never_leaves_its_directory(path: str, cwd: str) -> None:
    try:
        place = Places(cwd).node_path(path)
    except UsageError:
        return
    assert not place.startswith("/")
    assert not {"", ".", ".."} & set(place.split("/"))


TABLE = Item(
    ("data/a.tar.gz",), columns={"res": "x/y.png", "up": "../y", "top": "/y", "dot": ".", "me": "data/a.tar.gz"}
)


@pytest.mark.parametrize(
    ("places", "item", "placeholder", "final"),
    [
        (Places("/c", "o"), TABLE, "out", "/c/o/a.tar.gz"),
        (Places("/c", "o"), TABLE, "out:.png", "/c/o/a.tar.png"),
        (Places("/c", "o", keep_dirs=True), TABLE, "out", "/c/o/data/a.tar.gz"),
        (Places("/c", "/o", keep_dirs=True), Item(("/z/a.x",)), "out:.y", "/o/z/a.y"),
        (Places("/c", "/o", keep_dirs=True), Item(("a.x",)), "out:.y", "/o/a.y"),
        (Places("/c", "o", keep_dirs=True), Item(), "out", "/c/o/3"),
        (Places("/c", "o"), Item(), "out:.png", "/c/o/3.png"),
        (Places("/c"), TABLE, "out:.png", "/c/data/a.tar.png"),
        (Places("/c"), Item(("../a.x",)), "out:.y", "/a.y"),
        (Places("/c"), TABLE, "out:res", "/c/x/y.png"),
        (Places("/c", "o"), TABLE, "out:res", "/c/o/x/y.png"),
        (Places("/c", "o"), Item(("-x",)), "out", "/c/o/-x"),
        (Places("/c", "."), Item(("d/x",)), "out", "/c/x"),
    ],
)
def test_final_places(places: Places, item: Item, placeholder: str, final: str) -> None:
    assert places.output_path(item, placeholder, 3) == final


@pytest.mark.parametrize(
    ("places", "item", "placeholder", "says"),
    [
        (Places("/c"), TABLE, "out", "no place"),
        (Places("/c"), Item(), "out:.png", "no place"),
        (Places("/c", "o"), TABLE, "out:up", "cannot name an output"),
        (Places("/c", "o"), TABLE, "out:top", "cannot name an output"),
        (Places("/c", "o"), TABLE, "out:dot", "cannot name an output"),
        (Places("/c", "o"), TABLE, "out:gone", "no column"),
        (Places("/c"), TABLE, "out:.gz", "replace the input"),
        (Places("/c"), TABLE, "out:me", "replace the input"),
        (Places("/c", "data"), TABLE, "out", "replace the input"),
        (Places("/c", "."), Item(("x", "../c/x.y")), "out:.y", "replace the input"),
    ],
)
def test_what_cannot_be_an_output(places: Places, item: Item, placeholder: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        places.output_path(item, placeholder, 3)


def test_out_without_a_directory_has_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        HERE.output_path(TABLE, "out", 3)
    assert "--out DIR" in str(caught.value.hint)


@given(_paths)
def test_a_named_output_never_leaves_its_directory(name: str) -> None:
    try:
        final = Places("/c", "o").named_output(Item(), name)
    except UsageError:
        return
    assert final.startswith("/c/o/")
    assert ".." not in final.split("/")


def test_landing_is_beside_the_final_place() -> None:
    assert landing_path("/c/o/a.png", "7-x") == ("/c/o/.serai-7-x", "/c/o/.serai-7-x/a.png")
    assert landing_path("a.png", "7") == (".serai-7", ".serai-7/a.png")


@pytest.mark.parametrize(("final", "token"), [("/c/", "7"), ("..", "7"), ("/c/a", "../7"), ("/c/a", "")])
def test_no_landing(final: str, token: str) -> None:
    with pytest.raises(ValueError, match="no landing place"):
        landing_path(final, token)


def test_the_working_directory_is_absolute() -> None:
    with pytest.raises(UsageError, match="not absolute"):
        Places("run")


# ---- URLs


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("a:b", "a:b"),
        ("std::vector.txt", "std::vector.txt"),
        ("c://x", "c://x"),  # one letter is no scheme
        ("local:d/x", "d/x"),
        ("local:/d/x", "/d/x"),
        ("file:///d/x y", "/d/x y"),
        ("any:///d/x", "/d/x"),
        ("any://localhost/d/x", "/d/x"),
        ("any://me@localhost/d/x", None),
        ("any://lab1/d/x", None),
        ("ssh://localhost/d/x", None),
        ("s3://b/x", None),
    ],
)
def test_what_of_a_url_is_here(text: str, here: str | None) -> None:
    assert path_here(text) == here
    assert is_url(text) == (here != text)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("any://me@lab1:22/d/e/x y?%#.txt", ("me@lab1:22", "/d/e", "x y?%#.txt")),
        ("ssh://lab1/~/x", ("lab1", "/~", "x")),
        ("any://lab1/x", ("lab1", "", "x")),
        ("zip://x::any://lab1/z.zip", ("", "", "x")),
        ("zip://d/x::any://lab1/z.zip", ("d", "", "x")),
        ("s3://b/d/x?endpoint=http://127.0.0.1:80&region=r", ("b", "/d", "x")),
        ("s3://b/d/x?y=z", ("b", "/d", "x?y=z")),
        ("chirp://h:9094/d/x?auth=unix,hostname", ("h:9094", "/d", "x")),
        ("store://h:9094/d/x?fingerprint=sha256:0f", ("h:9094", "/d", "x")),
        ("zip://x::s3://b/z.zip?endpoint=http://s3.example", ("", "", "x")),
    ],
)
def test_parts_of_a_url(url: str, parts: tuple[str, str, str]) -> None:
    assert url_parts(url) == parts


def test_inputs_by_url_keep_their_names_and_their_company() -> None:
    first, second, other, alike = (
        posixpath.split(HERE.node_path(url))
        for url in ("any://lab1/d/x.bam", "any://lab1/d/x.bai", "any://lab2/d/x.bam", "ssh://lab1/d/x.bam")
    )
    assert (first[1], second[1], other[1]) == ("x.bam", "x.bai", "x.bam")
    assert first[0] == second[0]
    assert len({first[0], other[0], alike[0]}) == 3
    assert HERE.node_path("local:a/b") == "a/b"
    here, there = (HERE.node_path(f"s3://b/x?endpoint=http://{host}") for host in ("one", "two"))
    assert posixpath.basename(here) == posixpath.basename(there) == "x"
    assert here != there


@pytest.mark.parametrize("url", ["any://lab1/", "any://lab1/d/", "any://lab1/d/..", "any://lab1/x\0y"])
def test_what_of_a_url_cannot_be_an_input(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be an input"):
        HERE.node_path(url)


def test_outputs_of_inputs_by_url() -> None:
    item = Item(("any://lab1/d/x.txt",))
    assert Places("/c", "o").output_path(item, "out", 1) == "/c/o/x.txt"
    assert Places("/c", "o").output_path(item, "out:.y", 1) == "/c/o/x.y"
    assert Places("/c", "o", keep_dirs=True).output_path(item, "out", 1) == "/c/o/lab1/d/x.txt"
    with pytest.raises(UsageError, match="beside any://lab1"):
        Places("/c").output_path(item, "out:.y", 1)
    assert Places("/c").output_path(Item(("local:/d/x.txt",)), "out:.y", 1) == "/d/x.y"
    dotted = Item(("any://lab1/d/../../../x",))
    assert Places("/c", "o", keep_dirs=True).output_path(dotted, "out", 1).startswith("/c/o/")
