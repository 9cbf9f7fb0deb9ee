"""`helm` as far as meshfed calls it: the real one if there is one, else its engine from PyPI."""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

import yaml
from helm_python import Chart, Config, HelmError, HelmNotFoundError, parse_set_string

from meshfed.federation.install.release import Ended
from meshfed.federation.settings import over

REAL = shutil.which("helm")
Values = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """What of its command line is used; anything else ends the test."""
    line = argparse.ArgumentParser("helm", allow_abbrev=False)
    acts = line.add_subparsers(dest="act", required=True)
    for name in ("install", "upgrade", "rollback", "uninstall", "get"):
        act = acts.add_parser(name, allow_abbrev=False)
        if name == "get":
            act.add_argument("what", choices=["manifest"])
        act.add_argument("release")
        if name in ("install", "upgrade"):
            act.add_argument("chart")
            act.add_argument("--values")
            act.add_argument("--set", action="append", default=[])
            act.add_argument("--dry-run", choices=["client", "server"])
            act.add_argument("--output", choices=["json"])
        if name == "upgrade":
            act.add_argument("--reset-then-reuse-values", action="store_true", required=True)
        if name == "uninstall":
            act.add_argument("--ignore-not-found", action="store_true", required=True)
        act.add_argument("--namespace", required=True)
        act.add_argument("--kube-context")
        act.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    return line


def engine(arguments: Sequence[str]) -> Ended:
    said = parser().parse_args(arguments)
    try:
        with Config(
            kubeconfig_path=said.kubeconfig,
            kube_context=said.kube_context,
            namespace=said.namespace,
        ) as config:
            return Ended(0, _done(config, said), "")
    except HelmNotFoundError:
        return Ended(1, "", "Error: release: not found\n")
    except (HelmError, OSError) as error:
        return Ended(1, "", f"Error: {error}\n")


def _done(config: Config, said: argparse.Namespace) -> str:
    match said.act:
        case "get":
            return str(config.status(said.release)["manifest"])
        case "rollback":
            config.rollback(said.release)
            return ""
        case "uninstall":
            config.uninstall(said.release, ignore_not_found=True)
            return ""
    values = _values(said)
    with Chart.load(said.chart) as chart:
        if said.act == "install":
            made = config.install(chart, said.release, values, dry_run=said.dry_run)
        else:
            values = over(config.get_values(said.release) or {}, values)
            made = config.upgrade(chart, said.release, values, dry_run=said.dry_run)
    return json.dumps(made)


def _values(said: argparse.Namespace) -> Values:
    values: Values = {}
    if said.values:
        with open(said.values, encoding="utf-8") as file:  # noqa: PTH123  # as Helm says it
            values = yaml.safe_load(file) or {}
    for each in said.set:
        values = over(values, parse_set_string(each))
    return values
