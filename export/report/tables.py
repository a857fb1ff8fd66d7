"""The sections of a report that are tables: members, gates, layers, environment, manifest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape

from export.report.facts import Facts, MemberResult
from export.report.records import KINDS, LayerRow, Search, kind_of
from runtime.files.manifest import Member
from runtime.pixels.metrics import EQUAL

BAR = 160  # pixels, of the longest bar


def members(facts: Facts) -> Iterator[str]:
    yield "<section><h2>Members: parity, speed, memory</h2>"
    yield "<p>In the order in which they are tried. Parity is that of the golden frames with the fp32 reference.</p>"
    heads = ("member", "precision", "parity", "a golden window", "ran as, on")
    rows = [_recorded(result.member) for result in facts.members]
    yield table("From the manifest: measured where the bundle was made", heads, rows, numbers=(2, 3))
    heads = ("member", "ran as", "parity", "least", "PSNR", "network", "whole run", "peak memory")
    rows = [_measured(result, facts.least_parity(result)) for result in facts.members]
    yield table(f"Measured for this page, on {facts.machine}", heads, rows, numbers=(2, 3, 4, 5, 6, 7))
    yield (
        f'<p class="soft">PSNR: luma of {escape(facts.clip)}, mean over the frames that are not equal to the truth. Network: '
        "without its first window, while decoding and encoding go on beside it. Whole run: decoding, network, lossless encoding, "
        "preparation included. Peak memory: of the process, Python and video included. Whatever else the machine did meanwhile "
        "slowed it.</p>"
        "</section>"
    )


def _recorded(member: Member) -> tuple[str, ...]:
    untold = "" if member.parity is not None else "not run there"
    return (
        escape(member.file),
        escape(member.precision),
        decibels(member.parity) if member.parity is not None else "",
        f"{member.milliseconds:.1f} ms" if member.milliseconds is not None else "",
        escape(member.measured_on or untold),
    )


def _measured(result: MemberResult, least: float | None) -> tuple[str, ...]:
    trial = result.trial
    if trial is None:
        return (escape(result.member.file), f'<span class="no">not here</span>: {escape(result.failure)}')
    return (
        escape(result.member.file),
        escape(f"{trial.backend} {trial.precision}" + (f", {trial.machine}" if trial.machine else "")),
        decibels(trial.parity),
        decibels(least),
        decibels(result.psnr) if result.psnr is not None else "",
        f"{trial.network_fps:.1f} fps",
        f"{trial.fps:.1f} fps",
        f"{trial.peak_memory / 1e9:.2f} GB" if trial.peak_memory else "",
    )


def gates(facts: Facts) -> Iterator[str]:
    if not facts.gates:
        return
    yield "<section><h2>Against the PyTorch network</h2>"
    yield "<p>What <code>videodeblur ship</code> held every model to, on real clips.</p>"
    rows = [
        (
            escape(gate.model),
            escape(gate.precision),
            decibels(gate.parity),
            decibels(gate.least),
            '<span class="yes">passed</span>' if gate.passed else '<span class="no">failed</span>',
        )
        for gate in facts.gates
    ]
    yield table("From ship.json", ("model", "precision", "parity", "least", "verdict"), rows, numbers=(2, 3))
    yield "</section>"


def searches(facts: Facts) -> Iterator[str]:
    for name, search in facts.searches.items():
        asked = search.asked
        yield f"<section><h2>Sensitivity of the layers: {escape(asked.precision)} beside {escape(asked.rest)}</h2>"
        yield (
            f"<p>From {escape(name)}: parity with the fp32 graph when one layer alone is quantised, the most sensitive first. "
            f"Chosen within {asked.budget:g} dB of PSNR and {asked.min_psnr:g} dB of parity of the whole.</p>"
        )
        yield "<p>" + "".join(f'<span class="key bar {kind}">{meaning}</span>' for kind, meaning in KINDS.items()) + "</p>"
        yield table(
            f"Bars begin at {asked.min_psnr:g} dB; longer ones lose less",
            ("layer", "", "parity", "became"),
            list(_layers(search)),
            numbers=(2,),
        )
        yield "</section>"


def _layers(search: Search) -> Iterator[tuple[str, ...]]:
    rows = sorted(search.sensitivities, key=lambda row: math.inf if row.parity is None else row.parity)
    least = search.asked.min_psnr
    most = max((row.parity for row in rows if row.parity is not None and row.parity < EQUAL), default=least)
    for row in rows:
        kind = kind_of(row.chosen, row.excluded)
        share = 1.0 if row.parity is None or row.parity >= most else max(0.0, row.parity - least) / (most - least)
        bar = f'<rect class="bar {kind}" width="{BAR * share:.1f}" height="12" rx="2"/>'
        yield (
            escape(row.layer),
            f'<svg width="{BAR}" height="12" aria-hidden="true">{bar}</svg>',
            decibels(row.parity),
            escape(_became(row, search)),
        )


def _became(row: LayerRow, search: Search) -> str:
    if row.chosen:
        return search.asked.precision
    return f"{search.asked.rest}: {row.excluded or 'beyond the budget'}"


def environment(facts: Facts) -> Iterator[str]:
    yield '<section><h2>Environment</h2><div class="pair"><div>'
    here = [(escape(name), escape(value)) for name, value in facts.environment.items()]
    yield table("Where this page was made", ("", ""), here)
    yield "</div><div>"
    there = [(escape(name), escape(version)) for name, version in facts.manifest.versions.items()]
    yield table("Libraries that made the bundle", ("", ""), there)
    yield "</div></div></section>"


def manifest(facts: Facts) -> Iterator[str]:
    text = json.dumps(asdict(facts.manifest), indent=1, ensure_ascii=False)
    yield "<section><h2>Manifest</h2>"
    files, checkpoint = count(len(facts.manifest.files), "file"), escape(facts.manifest.checkpoint_sha256[:12])
    missing = f" Missing: {escape(', '.join(facts.missing))}." if facts.missing else ""
    yield f"<p>Checkpoint <code>{checkpoint}</code>. {files}; those that are there have the SHA-256 written here.{missing}</p>"
    yield '<details><summary>manifest.json</summary><div class="scroll" tabindex="0" role="region" aria-label="manifest.json">'
    yield f"<pre>{escape(text)}</pre></div></details></section>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """`rows` are HTML, all else is text; columns in `numbers` are aligned to the right; a short row's last cell goes to the end."""

    def cell(row: Sequence[str], place: int) -> str:
        if place == 0:
            return f'<th scope="row">{row[0]}</th>'
        if place == len(row) - 1 and len(row) < len(heads):
            return f'<td colspan="{len(heads) - place}">{row[place]}</td>'
        return f'<td class="number">{row[place]}</td>' if place in numbers else f"<td>{row[place]}</td>"

    titles = "".join(
        f'<th scope="col"{" class=number" if place in numbers else ""}>{escape(name)}</th>' for place, name in enumerate(heads)
    )
    head = f"<thead><tr>{titles}</tr></thead>" if any(heads) else ""
    lines = "\n".join(f"<tr>{''.join(cell(row, place) for place in range(len(row)))}</tr>" for row in rows)
    name = escape(caption)
    return (
        f'<p class="caption">{name}</p><div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table aria-label="{name}">{head}<tbody>\n{lines}\n</tbody></table></div>'
    )


def decibels(value: float | None) -> str:
    return "equal" if value is None or value >= EQUAL else f"{value:.2f} dB"


def count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
