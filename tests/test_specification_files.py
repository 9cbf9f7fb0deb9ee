"""SMI in files: what is seen, when, and what a broken or vanished file does."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from meshfed.catalog.model import Specified, TcpRoute
from meshfed.federation.specification.files import FilesSpecification
from meshfed.federation.specification.specification import Specification


def route(name: str, port: int = 80) -> str:
    return (
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\n"
        f"metadata: {{name: {name}, namespace: shop}}\nspec: {{matches: {{ports: [{port}]}}}}\n"
    )


def ports(specified: Specified) -> dict[str, int]:
    return {
        policy.name.name: min(policy.ports)
        for policy, _ in specified.policies
        if isinstance(policy, TcpRoute)
    }


def reasons(specified: Specified) -> list[str]:
    return [str(why) for _, _, why in specified.rejected]


def replace(path: Path, text: str) -> None:
    """As careful programs write: whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.rename(path)


def take_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def bring_back(folder: Path, text: str) -> None:
    folder.mkdir()
    replace(folder / "a.yaml", text)


async def until(seen: AsyncIterator[Specified], true: Callable[[Specified], bool]) -> Specified:
    async with asyncio.timeout(10):
        async for specified in seen:
            if true(specified):
                return specified
    raise AssertionError("it ended")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "policy"
    made.mkdir()
    return made


def watched(path: Path) -> aclosing:
    return aclosing(FilesSpecification(path, "files:policy").watch())


def test_it_is_a_specification(folder: Path):
    assert isinstance(FilesSpecification(folder, "files:policy"), Specification)


async def test_a_folder_is_read_whole_in_the_order_of_names(folder: Path):
    (folder / "team").mkdir()
    (folder / "b.yaml").write_text(route("b") + "---\n" + route("c"))
    (folder / "a.yml").write_text(route("a"))
    (folder / "team" / "d.json").write_text(
        '{"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "TCPRoute",'
        ' "metadata": {"name": "d", "namespace": "shop"}}'
    )
    for other in (".hidden.yaml", "a.yml~", "#b.yaml#", "notes.txt"):
        (folder / other).write_text("no: policy")
    async with watched(folder) as seen:
        first = await anext(seen)
    names = [(policy.name.name, where) for policy, where in first.policies]
    assert names == [
        ("a", f"{folder}/a.yml:1"),
        ("b", f"{folder}/b.yaml:1"),
        ("c", f"{folder}/b.yaml:6"),
        ("d", f"{folder}/team/d.json:1"),
    ]
    assert first.rejected == ()


async def test_an_edit_an_addition_and_a_removal_are_seen(folder: Path):
    (folder / "a.yaml").write_text(route("a", 1))
    async with watched(folder) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        replace(folder / "a.yaml", route("a", 2))
        await until(seen, lambda s: ports(s) == {"a": 2})
        (folder / "a.yaml").write_text(route("a", 3))
        await until(seen, lambda s: ports(s) == {"a": 3})
        replace(folder / "b.yaml", route("b", 4))
        await until(seen, lambda s: ports(s) == {"a": 3, "b": 4})
        (folder / "a.yaml").unlink()
        await until(seen, lambda s: ports(s) == {"b": 4})


async def test_a_configmap_is_seen_to_swap(folder: Path):
    def version(name: str, port: int) -> None:
        (folder / name).mkdir()
        (folder / name / "a.yaml").write_text(route("a", port))

    version("..1", 1)
    (folder / "..data").symlink_to("..1")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    async with watched(folder) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        version("..2", 2)
        (folder / "..data_tmp").symlink_to("..2")
        (folder / "..data_tmp").rename(folder / "..data")
        await until(seen, lambda s: ports(s) == {"a": 2})


async def test_a_folder_behind_a_link_is_seen_to_swap(tmp_path: Path):
    for name, port in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(route("a", port))
    (tmp_path / "policy").symlink_to("one")
    async with watched(tmp_path / "policy") as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "policy")
        await until(seen, lambda s: ports(s) == {"a": 2})


async def test_one_file_is_a_source_too(tmp_path: Path):
    file = tmp_path / "mesh.smi"
    file.write_text(route("a", 1))
    async with watched(file) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        replace(file, route("a", 2))
        await until(seen, lambda s: ports(s) == {"a": 2})


async def test_a_folder_that_vanishes_is_a_fault_until_it_is_back(folder: Path):
    (folder / "a.yaml").write_text(route("a", 1))
    async with watched(folder) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        take_away(folder)
        gone = await until(seen, lambda s: bool(s.fault))
        assert gone == Specified("files:policy", fault=f"{folder}: No such file or directory")
        bring_back(folder, route("a", 2))
        await until(seen, lambda s: ports(s) == {"a": 2})


async def test_a_folder_may_come_later(tmp_path: Path):
    async with watched(tmp_path / "not" / "yet") as seen:
        await until(seen, lambda s: bool(s.fault))
        (tmp_path / "not" / "yet").mkdir(parents=True)
        replace(tmp_path / "not" / "yet" / "a.yaml", route("a", 1))
        await until(seen, lambda s: ports(s) == {"a": 1})


async def test_a_path_that_cannot_even_be_looked_at_is_a_fault(tmp_path: Path):
    async with watched(tmp_path / ("x" * 300) / "policy") as seen:
        assert (await anext(seen)).fault.endswith("File name too long")


async def test_a_file_whose_name_is_not_text_has_a_name_that_is(folder: Path):
    (folder / os.fsdecode(b"caf\xe9.yaml")).write_text(route("a", 1) + "---\nkind: none\n")
    async with watched(folder) as seen:
        first = await anext(seen)
    assert first.policies[0][1] == f"{folder}/caf\\xe9.yaml:1"
    assert reasons(first)[0].startswith(f"{folder}/caf\\xe9.yaml:6")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(b"", "1: empty: delete it, or leave a comment in it", id="emptied"),
        pytest.param(b"a: {b", "2: not YAML: did not find expected ',' or '}'", id="half"),
        pytest.param(b"a: \xff", "1: not UTF-8 text (byte 3)", id="not text"),
    ],
)
async def test_a_broken_file_is_named_and_the_others_stand(folder: Path, text: bytes, why: str):
    (folder / "a.yaml").write_bytes(text)
    (folder / "b.yaml").write_text(route("b", 1))
    async with watched(folder) as seen:
        first = await anext(seen)
    assert ports(first) == {"b": 1}
    assert reasons(first) == [f"{folder}/a.yaml:{why}"]


async def test_a_link_to_nothing_is_named(folder: Path):
    (folder / "a.yaml").symlink_to("nowhere")
    async with watched(folder) as seen:
        first = await anext(seen)
    assert reasons(first) == [f"{folder}/a.yaml:1: cannot be read: No such file or directory"]


async def test_a_comment_says_on_purpose_that_there_is_nothing(folder: Path):
    (folder / "a.yaml").write_text("# nobody may call anybody\n")
    async with watched(folder) as seen:
        assert await anext(seen) == Specified("files:policy")


async def test_of_an_object_that_stands_twice_the_first_file_counts(folder: Path):
    (folder / "a.yaml").write_text(route("same", 1))
    (folder / "b.yaml").write_text(route("same", 2))
    async with watched(folder) as seen:
        first = await anext(seen)
    assert ports(first) == {"same": 1}
    assert reasons(first) == [
        f"{folder}/b.yaml:1: metadata.name: TCPRoute shop/same stands at {folder}/a.yaml:1 already"
    ]


async def test_a_save_by_way_of_a_backup_is_never_seen_without_the_file(folder: Path):
    (folder / "a.yaml").write_text(route("a", 1))
    async with watched(folder) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1})
        (folder / "a.yaml").rename(folder / "a.yaml~")
        coming = asyncio.create_task(anext(seen))
        await asyncio.sleep(0.03)  # the moment that an editor takes
        (folder / "a.yaml").write_text(route("a", 2))
        assert ports(await coming) == {"a": 2}


async def test_a_file_written_in_two_goes_is_never_seen_half(folder: Path):
    (folder / "a.yaml").write_text(route("a", 1) + "---\n" + route("b", 80))
    async with watched(folder) as seen:
        await until(seen, lambda s: ports(s) == {"a": 1, "b": 80})
        coming = asyncio.create_task(anext(seen))
        with (folder / "a.yaml").open("w") as file:
            file.write(route("a", 2))
            file.flush()
            os.fsync(file.fileno())
            await asyncio.sleep(0.03)  # a slow disk
            file.write("---\n" + route("b", 80))
        assert ports(await coming) == {"a": 2, "b": 80}


async def test_a_folder_that_links_to_itself_is_read_once(folder: Path):
    (folder / "a.yaml").write_text(route("a"))
    (folder / "again").symlink_to(".")
    async with watched(folder) as seen:
        assert reasons(await anext(seen)) == []
