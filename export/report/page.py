"""What is known of a bundle -> one HTML page that needs nothing else: no network, no fonts, no libraries.

Every text that comes from a file is escaped, and a content security policy forbids the page whatever it does not hold itself.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from export.report.chart import bar_chart, line_chart
from export.report.clip_scores import Cut, FrameScore
from export.report.facts import Facts
from export.report.tables import count, decibels, environment, gates, manifest, members, searches, table
from export.report.try_member import Trial

HERE = Path(__file__).parent
NAMES = ("blurry", "deblurred", "truth")


def page(facts: Facts) -> str:
    """The page's HTML."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "slider.js"))
    allowed = f"img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    body = [*_tiles(facts), *_slider(facts), *_crops(facts), *_quality(facts), *members(facts), *gates(facts), *searches(facts)]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
            f"<title>{escape(facts.name)}: report</title>\n<style>{style}</style>\n</head>\n<body>",
            *_header(facts),
            "<main>",
            *body,
            *environment(facts),
            *manifest(facts),
            f"<footer>Made by videodeblur report, {escape(facts.made)}. This file is all there is: it loads nothing.</footer>",
            f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _header(facts: Facts) -> Iterator[str]:
    running = sum(result.trial is not None for result in facts.members)
    yield '<header><div><p class="eyebrow">Video deblurring · bundle report</p>'
    yield f"<h1>{escape(facts.name)}</h1>"
    counted = f"{running} of {count(len(facts.members), 'member')} {'runs' if running == 1 else 'run'} on this machine"
    yield f"<p>Bundle of {escape(facts.manifest.created)}; {counted}. Measured on {escape(facts.machine)}.</p></div></header>"


def _tiles(facts: Facts) -> Iterator[str]:
    """The figures that a reader looks for first."""
    tiles = [*_quality_tiles(facts.scores), *_trial_tiles(facts.trial)]
    if tiles:
        yield '<dl class="tiles">'
        yield from (
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(how)}</dd></div>" for name, value, how in tiles
        )
        yield "</dl>"


def _quality_tiles(scores: Sequence[FrameScore]) -> Iterator[tuple[str, str, str]]:
    if not scores:
        return
    finite = [score for score in scores if math.isfinite(score.psnr_before) and math.isfinite(score.psnr_after)]
    if finite:
        before, after = _mean(score.psnr_before for score in finite), _mean(score.psnr_after for score in finite)
        equal = len(scores) - len(finite)
        without = f", without {count(equal, 'frame')} equal to the truth" if equal else ""
        yield "PSNR gain", f"{after - before:+.2f} dB", f"{before:.2f} to {after:.2f} dB, luma{without}"
    before, after = _mean(score.ssim_before for score in scores), _mean(score.ssim_after for score in scores)
    yield "SSIM gain", f"{after - before:+.4f}", f"{before:.4f} to {after:.4f}, luma"


def _trial_tiles(trial: Trial | None) -> Iterator[tuple[str, str, str]]:
    if trial is None:
        return
    where = f"{trial.backend} {trial.precision}"
    yield "Parity here", decibels(trial.parity), f"golden frames, {where}"
    yield "Speed here", f"{trial.fps:.1f} fps", f"{where}, whole run"
    if trial.peak_memory:
        yield "Peak memory here", f"{trial.peak_memory / 1e9:.2f} GB", "of the whole process"


def _slider(facts: Facts) -> Iterator[str]:
    yield "<section><h2>Before and after</h2>"
    if facts.shown is None:
        yield f"<p>No member runs here, so there are no frames of {escape(facts.clip)} to show.</p></section>"
        return
    shown, cut = facts.shown, facts.shown.slider
    chosen = "of the blurrier half, the one with the median gain" if facts.scores else "the one in the middle"
    whole = (cut.height, cut.width) == (shown.height, shown.width)
    part = "" if whole else f" A cut of {_size(cut)} at {cut.left}, {cut.top}, around the part that was changed most."
    yield f"<p>Frame {shown.number} of {escape(facts.clip)} ({shown.width}x{shown.height}), {chosen}.{part}</p>"
    yield '<div class="compare">'
    yield _image(facts, cut, 1)
    yield _image(facts, cut, 0, "blurry")
    yield '<span class="left" aria-hidden="true">blurry</span><span class="right" aria-hidden="true">deblurred</span>'
    label = "Divider: blurry left of it, deblurred right of it"
    yield f'<input type="range" min="0" max="100" step="1" value="50" aria-label="{label}"></div>'
    yield '<p class="soft">Drag the divider, or focus it and use the arrow keys. Lossless, and one pixel for one where the'
    yield "screen is wide enough.</p>"
    yield from (f'<p class="soft">{escape(note)}</p>' for note in facts.notes)
    yield "</section>"


def _crops(facts: Facts) -> Iterator[str]:
    if facts.shown is None:
        return
    yield "<section><h2>Crops, one pixel for one</h2>"
    yield f"<p>The places of frame {facts.shown.number} where the luma was changed most.</p>"
    yield '<div class="sets">'
    for crop in facts.shown.crops:
        yield f'<div><h3>{_size(crop)} at {crop.left}, {crop.top}</h3><div class="crops">'
        for number in range(len(crop.pictures)):
            quality = f", {decibels(crop.psnr[number])}" if number < len(crop.psnr) else ""
            yield f"<figure>{_image(facts, crop, number)}<figcaption>{NAMES[number]}{quality}</figcaption></figure>"
        yield "</div></div>"
    yield "</div></section>"


def _image(facts: Facts, cut: Cut, number: int, kind: str = "") -> str:
    assert facts.shown is not None
    text = f"frame {facts.shown.number} of {facts.clip}, {NAMES[number]}, {_size(cut)} at {cut.left}, {cut.top}"
    data = base64.b64encode(cut.pictures[number]).decode()
    named = f' class="{kind}"' if kind else ""
    return f'<img{named} alt="{escape(text)}" width="{cut.width}" height="{cut.height}" src="data:image/png;base64,{data}">'


def _quality(facts: Facts) -> Iterator[str]:
    if facts.shown is None:
        return
    yield "<section><h2>Quality of every frame</h2>"
    if not facts.scores:
        yield f"<p>The truth of {escape(facts.clip)} is not known, so nothing is compared with it.</p></section>"
        return
    yield f"<p>Luma of {count(len(facts.scores), 'frame')} of {escape(facts.clip)} against {escape(facts.truth or '')}.</p>"
    yield '<p><span class="key before">blurry</span><span class="key">deblurred</span></p><div class="charts">'
    for title, unit, name in (("PSNR", " dB", "psnr"), ("SSIM", "", "ssim")):
        before, after = ([getattr(score, f"{name}_{when}") for score in facts.scores] for when in ("before", "after"))
        yield _chart(f"{title}{',' if unit else ''}{unit}", line_chart(title, unit, before, after))
        gain = [b - a for a, b in zip(before, after)]
        yield _chart(f"{title} gain{',' if unit else ''}{unit}", bar_chart(f"Gain of {title}", unit, gain))
    yield "</div><details><summary>Every frame as numbers</summary>"
    rows = [
        (
            str(score.number),
            decibels(score.psnr_before),
            decibels(score.psnr_after),
            f"{score.psnr_after - score.psnr_before:+.2f} dB" if math.isfinite(score.psnr_before) else "",
            f"{score.ssim_before:.4f}",
            f"{score.ssim_after:.4f}",
        )
        for score in facts.scores
    ]
    heads = ("frame", "PSNR blurry", "PSNR deblurred", "gain", "SSIM blurry", "SSIM deblurred")
    yield table(
        "PSNR and SSIM of every frame", heads, [tuple(escape(cell) for cell in row) for row in rows], numbers=(1, 2, 3, 4, 5)
    )
    yield "</details></section>"


def _chart(title: str, drawing: str) -> str:
    return f"<figure><figcaption>{title}</figcaption>{drawing}</figure>"


def _size(cut: Cut) -> str:
    return f"{cut.width}x{cut.height}"


def _mean(values: Iterable[Any]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
