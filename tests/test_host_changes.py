"""How a host list changes: whatever people write with, and wherever it is."""

import asyncio
import os
from pathlib import Path

import pytest
from listed import File, host, seeing

from meshfed.catalog.model import Evidence


@pytest.fixture
def file(tmp_path: Path) -> File:
    listed = File(tmp_path / "hosts.yaml")
    listed.replace("hosts:\n" + host("a", "10.0.0.1") + host("b", "10.0.0.2"))
    return listed


async def test_an_entry_taken_out_is_stated(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.until({"10.0.0.1", "10.0.0.2"})
        file.replace("hosts:\n" + host("a", "10.0.0.1"))
        assert (await seen.next()).evidence is Evidence.STATED


async def test_a_file_written_in_place_is_read_when_it_rests(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.next()
        with file.path.open("w") as writing:
            for number in range(1, 6):
                writing.write("hosts:\n" if number == 1 else "")
                writing.write(host(f"h{number}", f"10.0.1.{number}"))
                writing.flush()
                await asyncio.sleep(0.01)  # a slow writer, not a wait
        assert len((await seen.next()).endpoints) == 5


async def test_hosts_missing_from_a_file_that_ends_within_a_line_are_in_doubt(file: File) -> None:
    text = "hosts:\n  - {name: a, address: 10.0.0.1, service: s.n, port: 80, identity: a.n}\n"
    block = "  - name: b\n    address: 10.0.0.2\n    identity: b.n\n    weight: 10\n"
    file.replace(text + block + "  - {name: c, address: 10.0.0.3, identity: c.n}\n")
    async with seeing(file.provider()) as seen:
        await seen.next()
        file.replace((text + block).removesuffix("0\n"))  # a full disk: `weight: 1`, and no c
        short = await seen.next()
        assert short.evidence is Evidence.LISTED
        assert short.fault == "hosts.yaml:6: the file ends in the middle of a line: end the line"
        file.replace(text + block)
        assert (await seen.next()).fault == ""


async def test_links_swapped_as_for_a_config_map_are_seen(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "hosts.yaml").write_text("hosts:\n" + host("a", f"10.0.0.{version}"))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "hosts.yaml").symlink_to("..data/hosts.yaml")
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        await seen.until({"10.0.0.1"})
        for version in (2, 3):
            (tmp_path / "..data_tmp").symlink_to(f"..{version}")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await seen.until({f"10.0.0.{version}"})


async def test_a_file_behind_a_link_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = File(tmp_path / "real" / "list.yaml")
    real.replace("hosts:\n" + host("a", "10.0.0.1"))
    (tmp_path / "hosts.yaml").symlink_to(real.path)
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        await seen.until({"10.0.0.1"})
        real.replace("hosts:\n" + host("a", "10.0.0.2"))
        await seen.until({"10.0.0.2"})


async def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    late = File(tmp_path / "late" / "hosts.yaml")
    async with seeing(late.provider()) as seen:
        assert "No such file" in (await seen.next()).fault
        late.path.parent.mkdir()
        late.replace("hosts:\n" + host("a", "10.0.0.1"))
        await seen.until({"10.0.0.1"})


async def test_a_path_that_cannot_even_be_looked_at_is_a_fault(tmp_path: Path) -> None:
    unlikely = tmp_path / ("x" * 300) / "hosts.yaml"  # as root is not refused a look into a folder
    async with seeing(File(unlikely).provider()) as seen:
        assert "File name too long" in (await seen.next()).fault


async def test_a_neighbour_whose_name_is_not_text_does_no_harm(file: File) -> None:
    async with seeing(file.provider()) as seen:
        await seen.next()
        file.path.with_name(os.fsdecode(b"caf\xe9")).write_text("")
        file.replace("hosts:\n" + host("a", "10.0.0.3"))
        await seen.until({"10.0.0.3"})


async def test_a_link_to_itself_is_a_fault_until_it_is_a_file(tmp_path: Path) -> None:
    circular = File(tmp_path / "hosts.yaml")
    circular.path.symlink_to("hosts.yaml")
    async with seeing(circular.provider()) as seen:
        assert "Too many levels" in (await seen.next()).fault
        circular.replace("hosts:\n" + host("a", "10.0.0.1"))
        await seen.until({"10.0.0.1"})


async def test_a_path_that_is_a_folder_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").mkdir()
    async with seeing(File(tmp_path / "hosts.yaml").provider()) as seen:
        assert (await seen.next()).fault.startswith("hosts.yaml:1: not a file")
