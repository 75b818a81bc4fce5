"""The batches of these tests are small, and are cut into shards all the same."""

import pytest


@pytest.fixture(autouse=True)
def _small_batches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitransformer.training.data_parallel.FEW_TOKENS", 0)
