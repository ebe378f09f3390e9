"""Files in config/ that operators take over: each is loaded, and names nothing that the broker does not have."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from broker.settings import KeyringSection, Section, Settings, load_settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
METRIC = re.compile(r"tokenbroker_[a-z0-9_]+")


def keys() -> Iterator[tuple[str, str]]:
    """Every key of the configuration, with its table."""
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from ((name, key) for key in kind.model_fields)
    yield from (("keyrings.payments", key) for key in KeyringSection.model_fields)


def expressions(value: Any) -> Iterator[str]:
    """Every PromQL expression in a tree of alerts or panels."""
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key in {"expr", "query"} and isinstance(inner, str))
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


async def names_of(served: Any) -> set[str]:
    """Every name that a sample of this broker can have, after each kind of request was made once."""
    async with aiohttp.ClientSession() as session:
        await (await session.get(f"{served.url}/healthz")).read()
        text = await (await session.get(f"{served.url}/metrics")).text()
    names = set()
    for family in text_string_to_metric_families(text):
        names |= {sample.name for sample in family.samples}
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


@pytest.mark.parametrize("name", ["alerts/prometheus.yml", "dashboards/tokenbroker.json"])
async def test_every_number_that_is_watched_is_exported(served: Any, name: str) -> None:
    """An alert or a panel on a number that nobody exports would never fire and never show."""
    tree = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    used = {metric for expression in expressions(tree) for metric in METRIC.findall(expression)}
    assert len(used) > 10
    assert used <= await names_of(served)


def test_every_alert_says_what_to_do() -> None:
    """Whoever is woken up is told what happened and what to do."""
    groups = yaml.safe_load((CONFIG / "alerts" / "prometheus.yml").read_text(encoding="utf-8"))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert {"summary", "do"} <= rule["annotations"].keys(), rule["alert"]


def test_every_panel_has_its_own_place_and_a_description() -> None:
    """Panels that lie upon each other, or that nobody understands, are of no use."""
    panels = json.loads((CONFIG / "dashboards" / "tokenbroker.json").read_text(encoding="utf-8"))["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["targets"] for panel in panels)


def test_the_example_configuration_is_the_default() -> None:
    """The example as it stands changes nothing, so that an operator may begin with it."""
    assert load_settings(CONFIG / "broker.example.toml", {}) == Settings()


def test_the_example_configuration_has_every_key() -> None:
    """With its commented lines the example has every key there is, each with a value of the right kind."""
    text = (CONFIG / "broker.example.toml").read_text(encoding="utf-8")
    whole = tomllib.loads(re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE))
    read_settings(whole, {}, where="the example")
    for table, key in keys():
        tables: Any = whole
        for part in table.split("."):
            tables = tables[part]
        assert key in tables, f"[{table}] {key}"
