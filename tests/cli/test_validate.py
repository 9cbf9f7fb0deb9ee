"""`meshfed validate` of a list that takes its time."""

from pathlib import Path

HOSTS = """\
hosts:
  - {name: web-1, address: 10.0.0.1, service: web.shop, port: 8080, identity: web.shop}
"""
REMARK = f"# {'x' * 997}\n"
WHILE = "hosts.yaml: 5 MB to check: this takes a while\n"


def test_who_waits_for_a_long_file_is_told_why(meshfed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(HOSTS.replace("10.0.0.1", "10.0.0.2"))
    (tmp_path / "hosts.yaml").write_text(HOSTS + 5000 * REMARK)
    (tmp_path / "meshfed.yaml").write_text("providers: [{name: a, type: hosts, path: hosts.yaml}]")
    assert meshfed("validate", "short.yaml").err == ""
    for given in ("hosts.yaml", "meshfed.yaml"):  # which names it
        ended = meshfed("validate", given)
        assert (ended.code, ended.err) == (0, WHILE)
        assert "hosts.yaml: a host list, and right" in ended.out
