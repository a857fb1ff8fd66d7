"""Users read our sentences before our code: help texts stand alone, pages keep to the words of the glossary and to a width."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

import videodeblur

ROOT = Path(__file__).resolve().parents[1]
FRAGMENTS = ("of", "that", "for", "which")  # words with which no text begins that stands alone
BANNED = ("carried over", "came to", "is said", "taken as said", "said again")
WIDEST = 160  # characters of a line of Markdown
WIDE_TABLES = {"training.md"}
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "benchmarks").glob("**/*.py"))
    if "ArgumentParser(" in path.read_text()
]
TRAINING = [f"training.{name}" for name in ("gain", "parts", "preview", "speed", "tables")]
MODULES = sorted({*(module for module, _ in videodeblur.COMMANDS.values()), *SCRIPTS, *TRAINING, "export.to_trt8"})


class Built(BaseException):
    """Carries the parser out of a command that would parse now; no command catches it."""


def parser_of(module, monkeypatch):
    def leave(parser, *_, **__):
        raise Built(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", leave)
    with pytest.raises(Built) as built:
        importlib.import_module(module).main([])
    return built.value.args[0]


@pytest.mark.parametrize("module", MODULES)
def test_help_stands_alone(module, monkeypatch):
    parser = parser_of(module, monkeypatch)
    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    assert parser.description
    for action in shown:
        name = "/".join(action.option_strings) or action.dest
        assert action.help, f"{name} has no help"
        first = re.match(r"\W*(\w*)", action.help)[1].lower()
        assert first not in (*FRAGMENTS, "default"), f"{name}: {action.help}"
    assert banned("\n".join([parser.description, parser.epilog or "", *(action.help for action in shown)])) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_keep_to_the_words(page):
    assert banned(page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_can_be_read_in_a_terminal(page):
    written_by_hand = re.sub(r"(?s)^```.*?^```|^<!-- (\w+ \w+) -->.*?^<!-- /\1 -->", blank, page.read_text(), flags=re.MULTILINE)
    for number, line in enumerate(written_by_hand.splitlines(), 1):
        if not (line.startswith("|") and page.name in WIDE_TABLES):
            assert len(line) <= WIDEST, f"{page.name}:{number} has {len(line)} characters"


def blank(block):
    """The block's lines without what is in them: code, and what the benchmarks write."""
    return "\n" * block[0].count("\n")


def banned(text):
    words = re.sub(r"\s+", " ", text)
    return [phrase for phrase in BANNED if re.search(rf"\b{phrase}\b", words)]


def test_the_readme_explains_its_words():
    glossary = (ROOT / "README.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    for word in ("window", "contract", "parity", "golden frames", "bundle", "ranges"):
        assert f"**{word}**" in glossary, word
