"""YAML that somebody wrote: whatever is wrong with it is one line, and never an exception."""

import subprocess
import sys

import pytest

from meshfed.catalog.document import Unreadable, documents


def refusal(text: str) -> str:
    with pytest.raises(Unreadable) as refused:
        list(documents(text, "f.yaml"))
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("a: 1\nb: 2024-02-30\n", "f.yaml:2: day is out of range", id="no such day"),
        pytest.param("a: 1\n2024-02-30: b\n", "f.yaml:2: day is out of range", id="as a key"),
        pytest.param("a: !!bool maybe\n", "f.yaml:1: 'maybe' is not what its tag", id="bool"),
        pytest.param("a: !!int ''\n", "f.yaml:1: '' is not what its tag", id="integer"),
        pytest.param("a: !!timestamp x\n", "f.yaml:1: 'x' is not what its tag", id="timestamp"),
        pytest.param("!!bool maybe: 1\n", "f.yaml:1: 'maybe' is not what its tag", id="tagged key"),
        pytest.param("? [a]\n: 1\n", "f.yaml:1: a key must be a scalar", id="a list as a key"),
        pytest.param("? !!set {a}\n: 1\n", "f.yaml:1: a key must be a scalar", id="a set as a key"),
        pytest.param('a: "x\\0y"\n', "f.yaml:1: a NUL", id="a NUL that is escaped"),
        pytest.param("\0\0\0", "f.yaml:1: not YAML: control", id="zeros where a file should be"),
        pytest.param("ä: 1\nb: \x01\n", "f.yaml:2: not YAML: control", id="a control character"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text: str, why: str) -> None:
    assert refusal(text).startswith(why)
    assert "\n" not in refusal(text)


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    assert "aliases" in refusal("\n".join(lines))


def test_defaults_that_many_hosts_merge_are_read() -> None:
    host = {"address": "10.0.0.1", "identity": "a.shop", "locality": "onprem/rack-1"}
    merged = "".join(f"  - {{<<: *d, name: h{n}}}\n" for n in range(5000))
    text = f"defaults: &d {host}\nhosts:\n{merged}"
    (found,) = documents(text, "f.yaml")
    assert isinstance(found.data, dict)
    assert found.data["hosts"][-1] == {**host, "name": "h4999"}


@pytest.mark.parametrize("level", ["[", "- ", "{a: "])
def test_nesting_that_would_overrun_the_stack_is_refused(level: str) -> None:
    reading = (
        "from meshfed.catalog.document import Unreadable, documents\n"
        f"try: list(documents({level!r} * 100_000, 'f.yaml'))\n"
        "except Unreadable as why: print(why)\n"
    )
    done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "f.yaml:1: nested more than 100 levels deep\n")


def nested(levels: int) -> str:
    """Mappings in mappings, each on a line of its own."""
    return "".join(f"{' ' * level}a:\n" for level in range(levels - 1)) + " " * levels + "a: 1\n"


def test_what_is_nested_too_deep_is_told_with_the_line_on_which_it_is() -> None:
    assert len(list(documents(nested(100) + "---\n" + nested(100), "f.yaml"))) == 2
    assert refusal(nested(101)) == "f.yaml:101: nested more than 100 levels deep"
