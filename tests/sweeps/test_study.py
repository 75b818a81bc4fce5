"""Reading a study: what it runs, and what is wrong in it, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitransformer.errors import ConfigError
from minitransformer.sweeps.study import from_dict, parse_toml, read_study, to_dict
from sweeps.studies import RUNS, TINY, write_study


def changed(old: str, new: str) -> str:
    assert old in TINY
    return TINY.replace(old, new)


def test_a_part_is_the_product_of_its_lists(tmp_path: Path) -> None:
    lists = 'bottleneck = [2, 8]\nplacement = ["houlsby", "parallel"]\nlayers = ["0-1", "1"]'
    study = read_study(write_study(tmp_path, changed("bottleneck = [2, 8]", lists)))
    cells = study.parts[0].cells
    options = [cell.run(1e-3, 5).options for cell in cells]
    assert (
        len({(o.adapter.bottleneck, o.adapter.placement, o.adapter.layers) for o in options}) == 8
    )
    assert {o.adapter.layers for o in options} == {(0, 1), (1,)}
    assert {(o.training.lr, o.training.seed, o.training.epochs) for o in options} == {(1e-3, 5, 1)}
    assert {o.base for o in options} == {"tiny"}


def test_two_phases(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path))
    cell = study.parts[0].cells[0]
    first, second = cell.first_phase(), cell.second_phase(1e-2)
    assert [(r.options.training.lr, r.options.training.seed) for r in first] == [
        (1e-3, 0),
        (1e-2, 0),
    ]
    assert [(r.options.training.lr, r.options.training.seed) for r in second] == [(1e-2, 1)]
    assert study.run_count() == RUNS


def test_a_cell_of_two_parts_is_run_once(tmp_path: Path) -> None:
    again = '\n[[part]]\nname = "again"\nbottleneck = [8, 16]\nlr = [1e-3, 1e-2]\n'
    study = read_study(write_study(tmp_path, TINY + again))
    assert len(study.parts[2].cells) == 2
    assert study.run_count() == RUNS + 3


def test_part_over_task_over_run(tmp_path: Path) -> None:
    text = changed("test_limit = 32", "test_limit = 32\nepochs = 2\nbatch_size = 8")
    text = text.replace('name = "sizes"', 'name = "sizes"\nbatch_size = 4')
    sizes, others = read_study(write_study(tmp_path, text)).parts
    of_sizes, of_others = (part.cells[0].run(None, 0).options for part in (sizes, others))
    assert (of_sizes.training.epochs, of_sizes.training.batch_size) == (2, 4)
    assert (of_others.training.epochs, of_others.training.batch_size) == (2, 8)


def test_a_part_on_some_of_the_tasks(tmp_path: Path) -> None:
    text = changed('name = "sizes"', 'name = "sizes"\ntasks = ["mine.csv"]')
    text = text.replace("[[part]]", '[[task]]\nname = "mine.csv"\n[[part]]', 1)
    (tmp_path / "mine.csv").write_text("text,label\na,0\nb,1\n")
    study = read_study(write_study(tmp_path, text))
    assert {cell.task.name for cell in study.parts[0].cells} == {"mine.csv"}
    assert {cell.task.name for cell in study.parts[1].cells} == {"mine.csv", "toy-reviews"}


def test_the_key_of_a_data_file_is_its_content(tmp_path: Path) -> None:
    text = changed('name = "toy-reviews"', 'name = "mine.csv"')
    keys = []
    for folder, content in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.csv").write_text(f"text,label\n{content},0\n")
        study = read_study(write_study(tmp_path / folder, text))
        keys.append(study.parts[0].cells[0].run(1e-3, 0).key)
    assert keys[0] == keys[1] != keys[2]


def test_different_outcomes_have_different_keys(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path))
    keys = [
        cell.run(rate, seed).key
        for cell in study.cells()
        for rate in (None, 1e-3, 2e-3)
        for seed in (0, 1)
    ]
    assert len(set(keys)) == len(keys)


def test_a_study_as_plain_values_and_back(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path))
    assert from_dict(to_dict(study)) == study


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "tiny"', 'name = "ti ny"', "name='ti ny'"),
        ("seeds = [0, 1]", "seeds = []", "seeds=[]"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds=[0, 0]"),
        ("seeds = [0, 1]", "seeds = [0, -1]", "part 'sizes': seed=-1"),
        ("seeds = [0, 1]", "sedes = [0, 1]", "sedes: unknown key"),
        ('name = "toy-reviews"', 'name = "toy-revues"', "'toy-revues'"),
        ("limit = 64", "limit = 0", "[[task]] 'toy-reviews': limit=0"),
        ("epochs = 1", 'epochs = "one"', "part 'sizes': epochs='one'"),
        ("epochs = 1", "threads = 2", "part 'sizes': threads=2"),
        ("bottleneck = [2, 8]", "bottlenek = [2, 8]", "part 'sizes': bottlenek=2"),
        ("bottleneck = [2, 8]", "bottleneck = [2, 0]", "part 'sizes': bottleneck=0"),
        ("bottleneck = [2, 8]", "bottleneck = []", "part 'sizes': bottleneck=[]"),
        ("bottleneck = [2, 8]", "limit = 3", "part 'sizes': limit=3: belongs to a [[task]]"),
        ("bottleneck = [2, 8]", "seed = 3", "part 'sizes': seed=3"),
        ("bottleneck = [2, 8]", 'layers = "0;1"', "part 'sizes': layers='0;1'"),
        ("lr = [1e-3, 1e-2]", "lr = [1e-3, -1]", "part 'sizes': lr=-1"),
        ("lr = [1e-3, 1e-2]", "lr = []", "part 'sizes': lr=[]"),
        ('name = "others"', 'name = "others"\nbottleneck = 4', "part 'others': bottleneck=4"),
        ('name = "others"', 'name = "sizes"', "expected each name once"),
        ('name = "others"', 'name = "others"\ntasks = ["x"]', "part 'others': tasks"),
        ('name = "others"', 'name = "others"\ntasks = []', "part 'others': tasks=[]"),
        ("epochs = 1", "data = 1", "part 'sizes': data=1: a sweep reads the columns text and"),
        ('method = ["head", "full"]', 'method = "heads"', "part 'others': method='heads'"),
        ("[[part]]", "[[parts]]", "parts: unknown key"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write_study(tmp_path, changed(old, new))
    with pytest.raises(ConfigError) as raised:
        read_study(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_study(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_study(write_study(tmp_path, "name = "))


def test_the_studies_that_come_with_the_repository() -> None:
    folder = Path(__file__).parents[2] / "studies"
    found = sorted(folder.glob("*.toml"))
    assert found
    for path in found:
        study = read_study(path)
        assert study.name == parse_toml(path.read_text("utf-8"))["name"]
