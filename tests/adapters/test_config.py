"""AdapterConfig: fields left out stay None; wrong values are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minitransformer import AdapterConfig
from minitransformer.errors import ConfigError


def test_what_is_left_out_stays_none_until_it_is_read() -> None:
    config = AdapterConfig()
    assert (config.bottleneck, config.sites, config.layers) == (None, None, None)
    assert config.width(768) == 64
    assert config.resolved_sites == ("attention", "ffn")


def test_replace_does_what_it_says() -> None:
    assert replace(AdapterConfig(), placement="pfeiffer").resolved_sites == ("ffn",)
    assert replace(AdapterConfig(), reduction_factor=16).width(768) == 48
    kept = replace(AdapterConfig(sites=("attention",)), placement="pfeiffer")
    assert kept.resolved_sites == ("attention",)


def test_the_resolved_configuration_depends_on_no_default() -> None:
    resolved = AdapterConfig(placement="pfeiffer").resolved()
    assert (resolved.bottleneck, resolved.sites) == (64, ("ffn",))
    assert resolved.resolved() == resolved
    assert AdapterConfig(reduction_factor=12).resolved().bottleneck is None


def test_a_configuration_survives_a_file() -> None:
    for config in (AdapterConfig(), AdapterConfig(8, sites="ffn", layers=[0, 2], scaling=2)):
        assert AdapterConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3}, {"layers": "3-5"}, {"layers": (1.9,)}, {"layers": (-1,)}, {"layers": (1, 1)},
        {"layers": ()}, {"layers": (True,)}, {"bottleneck": 0}, {"bottleneck": True},
        {"bottleneck": 2.0}, {"bottleneck": 8, "reduction_factor": 2}, {"reduction_factor": "2"},
        {"reduction_factor": float("nan")}, {"dropout": 1}, {"dropout": "a"},
        {"scaling": float("inf")}, {"scaling": "learnt"}, {"sites": ()}, {"sites": "middle"},
        {"sites": ("ffn", "ffn")}, {"placement": "above"}, {"norm": "inside"}, {"init": "zero"},
        {"activation": "swish"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        AdapterConfig(**options)
    assert next(iter(options)) in str(error.value)
