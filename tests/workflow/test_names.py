"""Names that people give, in figures and paths: shown as they are, or in a way that cannot be taken for another."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import findfont, fontManager, get_font

from tests.workflow.test_plan import plan
from workflow.report.gallery import draw
from workflow.report.style import UNDRAWN, class_title, plain, save, use_fonts, use_style

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


@pytest.fixture
def own_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with matplotlib's own fonts and no others."""
    own = [font for font in fontManager.ttflist if font.fname.startswith(mpl.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", own)
    yield
    monkeypatch.undo()
    UNDRAWN.clear()
    use_fonts("")


@pytest.mark.parametrize("name", ["猫", "고양이", "बिल्ली", "🐈"])
def test_a_name_that_no_font_can_draw_is_a_number_and_one_warning_says_so(
    name: str, own_fonts: None, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fonts(f"a {name}")
    use_fonts(f"b {name}")
    assert class_title(name, 3) == class_title(f"a {name}", 3) == "class 3" and class_title("a", 3) == "a"
    assert name not in plain(f"of {name}") and plain(f"of {name}").startswith("of ?")
    said = capsys.readouterr().err
    assert said.count("warning: no font here has") == 1 and name[0] in said and "fonts-noto" in said


def test_a_name_from_right_to_left_is_drawn_so(own_fonts: None) -> None:
    """Its last letter stands at the left."""
    name = "חתול"
    use_fonts(name)
    assert class_title(name, 3) == name
    font = get_font(findfont("DejaVu Sans"))
    font.set_size(48, 100)

    def drawn(text: str) -> np.ndarray:
        font.set_text(text)
        font.draw_glyphs_to_bitmap()
        return np.array(font.get_image()) / 255

    def differs(letter: str) -> float:
        """By how much of its ink the left end of the word is another letter; all stand on one line."""
        alone, word = drawn(letter), drawn(name)
        height = min(len(alone), len(word))
        left = word[-height:, : alone.shape[1]]
        return float(np.abs(left - alone[-height:]).sum() / alone.sum())

    differences = [differs(letter) for letter in name]
    assert differences[-1] < 0.3 < min(differences[:-1]), differences


def test_letters_that_are_joined_take_less_room_than_each_by_itself(own_fonts: None) -> None:
    name = "قطة"
    use_fonts(name)
    assert class_title(name, 3) == name
    font = get_font(findfont("DejaVu Sans"))
    font.set_text(name)
    joined = font.get_width_height()[0]
    font.set_text("\u200c".join(name))
    assert joined < font.get_width_height()[0]


def test_another_font_of_this_machine_draws_what_the_first_lacks(
    tmp_path: Path, own_fonts: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A font of one letter, a square; a warning of a missing letter would fail this test."""
    pen = TTGlyphPen(None)
    for k, place in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if k else pen.moveTo)(place)
    pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "cat"])
    made.setupCharacterMap({ord("猫"): "cat"})
    made.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    made.setupHorizontalHeader(ascent=900, descent=-100)
    made.setupNameTable({"familyName": "Of One Letter", "styleName": "Regular", "psName": "OfOneLetter"})
    made.setupOS2(usWeightClass=400)
    made.setupPost()
    made.save(tmp_path / "cat.ttf")
    fontManager.addfont(tmp_path / "cat.ttf")
    use_fonts("Katze 猫")
    assert class_title("Katze 猫", 3) == "Katze 猫" and "warning" not in capsys.readouterr().err
    figure, axis = plt.subplots()
    axis.set_xticks([0], [class_title("Katze 猫", 3)])
    save(figure, str(tmp_path / "figure"))
    plt.close(figure)
    assert "OfOneLetter" in (tmp_path / "figure.svg").read_text()


def test_a_long_name_is_cut() -> None:
    assert class_title("a" * 40, 3) == "a" * 15 + "…"


def test_the_gallery_draws_any_name(tmp_path: Path) -> None:
    """A warning of a missing letter would fail this test."""
    use_style()
    names = ["Ba$$in", "猫", "חתול", "x" * 50]
    use_fonts("".join(names))
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
