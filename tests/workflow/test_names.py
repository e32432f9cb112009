"""Names that people give, in figures and paths: shown as they are, or in a way that cannot be taken for another."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.workflow.test_plan import plan
from workflow.report.gallery import draw
from workflow.report.style import class_title, plain, save, use_style

SHOWN = [
    "cat",
    "Ba$$in",
    "a$b",
    r"\alpha",
    "100% & #1_x{y}^~",
    "<b>bold</b>",
    "café",
    "кошка",
    "γάτα",
    "| pipe |",
    "`x`",
]


@pytest.mark.parametrize("name", SHOWN)
def test_a_class_name_is_drawn_letter_by_letter(name: str) -> None:
    use_style()
    figure, axis = plt.subplots()
    text = axis.set_title(class_title(name, 3))
    drawn, is_formula = text._preprocess_math(text.get_text())  # type: ignore[attr-defined]
    assert not is_formula and drawn == name
    plt.close(figure)


@pytest.mark.parametrize("name", ["猫", "고양이", "बिल्ली", "חתול", "قطة", "🐈"])
def test_a_name_that_the_font_cannot_draw_is_a_number(name: str) -> None:
    assert class_title(name, 3) == class_title(f"a {name}", 3) == "class 3"


def test_a_long_name_is_cut() -> None:
    assert class_title("a" * 40, 3) == "a" * 15 + "…"


def test_the_gallery_draws_any_name(tmp_path: Path) -> None:
    """A warning of a missing letter would fail this test."""
    use_style()
    names = ["Ba$$in", "猫", "חתול", "x" * 50]
    tensors = {name: np.zeros((4, 8, 8, 3)) for name in ("context", "object", "mask", "resampled", "mixed")}
    meta = {f"{kind}_class": names for kind in ("context", "resampled")}
    labels = {f"{kind}_label": list(range(4)) for kind in ("context", "resampled")}
    meta_all = {**meta, **labels, "confidence": [0.5] * 4, "mix": [0.5] * 4}
    save(draw(tensors, meta_all, "of $x and $y"), str(tmp_path / "gallery"))
    assert (tmp_path / "gallery.png").stat().st_size > 1000


def test_a_dollar_is_a_dollar() -> None:
    assert plain("$a$") == r"\$a\$"


def test_a_data_set_is_named_by_its_folder_without_patterns(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f'data: {{source: folder, root: "{tmp_path}/my {{a}} <b> photos (1)"}}\nmodel: resnet20\n')
    assert plan(protocol=str(path)).run("csa", {}, 1).data == "folder-my _a_ _b_ photos (1)"
