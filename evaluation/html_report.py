"""An evaluation's report as one self-contained HTML page, without scripts or external files.

Metrics, plots, classes, confusion matrix and the worst images; for light and dark screens and for
printing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.gate import metric_name
from evaluation.letterbox import letterbox_of
from evaluation.store import PLOTS

Report = Mapping[str, Any]

MOST_CLASSES = 80  # rows of the confusion matrix; with more, the classes with the most errors
MOST_CONFUSIONS = 20  # pairs of classes in the list of frequent errors
LEVELS = 9  # number of shades of a cell in the confusion matrix
# (largest number of classes, side of a cell in pixels)
CELLS = ((12, 46), (30, 30), (50, 22), (MOST_CLASSES + 1, 15))

TITLES = {
    "accuracy": "Accuracy",
    "accuracy_top5": "Top-5 accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1_score": "F1",
    "mAP50": "mAP50",
    "mAP50_95": "mAP50-95",
    "inference_time": "Inference",
}
GROUPS = {
    "old_classes_before": "Old classes before",
    "old_classes": "Old classes after",
    "forgotten": "Forgotten",
    "new_classes": "New classes",
}
AT_BEST = ("precision", "recall", "f1_score")  # given at `f1_confidence`
COUNTS = {"images": "Images", "instances": "Objects"}
TABLES = ("confusion", "classes")  # plots that the page shows as tables
PLOT_TITLES = {
    "precision_recall": "Precision over recall",
    "f1_confidence": "F1 over confidence",
    "reliability": "Reliability (accuracy over confidence)",
}
KINDS = {"": "", "mask_": "masks: ", "pose_": "keypoints: "}


def page(report: Report, folder: Path, evaluation: str = "") -> str:
    """The HTML page of an evaluation.

    Args:
        report: Content of report.json.
        folder: The evaluation's folder, with plots/ and worst/.
        evaluation: The evaluation's id, shown in the footer.
    """
    model, dataset = report["model"], report["dataset"]
    parts = [
        _head(model, dataset, report),
        _forgetting(report.get("forgetting")),
        _tiles(report["figures"]),
        _notes(report.get("notes", ())),
        _thresholds(report),
        _plots(report.get("plots", ()), folder / PLOTS),
        _classes(report["classes"], report["model"]["type"]),
        _confusion(report["confusion"]),
        _worst(report.get("worst", ()), folder),
        _definitions(report.get("definitions", {})),
        _foot(report, evaluation),
    ]
    title = escape(f"{model['id']} on {dataset['name']}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _head(model: Report, dataset: Report, report: Report) -> str:
    objects = "" if model["type"] == "classification" else f", {dataset['instances']:,} objects"
    letterbox = letterbox_of(report)
    facts = (
        f"{model['type']}, {model['family']} · {dataset['name']}, split {dataset['split']}: "
        f"{dataset['images']:,} images{objects} · {report['engine']}, {report['imgsz']} pixels"
        f"{f', letterbox {letterbox}' if letterbox else ''} · "
        f"{report['created_at'][:16].replace('T', ' ')} UTC"
    )
    return f"<header><h1>{escape(model['id'])}</h1><p>{escape(facts)}</p></header>"


def _forgetting(found: Report | None) -> str:
    """What an incremental training kept and learned; empty for any other model."""
    if found is None:
        return ""
    tiles = "".join(
        f"<div><b>{_number(found.get(name))}</b><span>{title}</span></div>"
        for name, title in GROUPS.items()
    )
    rows = [
        (
            escape(row["name"]),
            row["kind"],
            _number(row["before"]),
            _number(row["after"]),
            str(row["objects"]),
            f"{row['on']} data",
        )
        for row in found["classes"]
    ]
    heads = ("Class", "Kind", "Before", "After", "Objects", "Measured on")
    metric = escape(TITLES.get(str(found["metric"]), metric_name(str(found["metric"]))))
    return (
        f"<section><h2>Old and new classes ({metric})</h2>"
        f'<div class="tiles">{tiles}</div><p>{escape(found.get("summary", ""))}</p>'
        f"{_table(heads, rows)}</section>"
        "<h2>All classes, on the val split of the new data</h2>"
    )


def _tiles(figures: Mapping[str, float]) -> str:
    tiles = []
    for prefix, kind in KINDS.items():
        for name, title in TITLES.items():
            value = figures.get(prefix + name)
            if value is None:
                continue
            shown = f"{value:.1f} ms" if name == "inference_time" else f"{value:.3f}"
            at = figures.get(f"{prefix}f1_confidence") if name in AT_BEST else None
            point = f" at confidence {at:.3f}" if at is not None else ""
            tiles.append(f"<div><b>{shown}</b><span>{kind}{title}{point}</span></div>")
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _thresholds(report: Report) -> str:
    """Metrics at the confidence of the best F1 and at the serving confidence, and the times."""
    speed = report["speed"]
    steps = " + ".join(f"{escape(step)} {ms:.1f}" for step, ms in speed.items())
    times = f"<p>Milliseconds per image: {steps} = <b>{sum(speed.values()):.1f}</b></p>"
    ways = {
        f"{KINDS[kind]}{way}": report.get(kind + key)
        for kind in KINDS
        for way, key in (("best F1", "at_best_f1"), ("as served", "at_serving"))
    }
    names = ("confidence", "precision", "recall", "f1_score", "accuracy")
    rows = [
        (escape(way), *(_number(found.get(name)) for name in names))
        for way, found in ways.items()
        if found
    ]
    if not rows:
        return f"<section><h2>Speed</h2>{times}</section>"
    heads = ("", *("Confidence" if name == "confidence" else TITLES[name] for name in names))
    return f"<section><h2>Thresholds and speed</h2>{_table(heads, rows)}{times}</section>"


def _plots(names: Iterable[str], folder: Path) -> str:
    figures = []
    for name in names:
        if name in TABLES:
            continue
        prefix = next((p for p in KINDS if p and name.startswith(p)), "")
        title = KINDS[prefix] + PLOT_TITLES.get(name[len(prefix) :], name)
        if source := _data_uri(folder / f"{name}.png"):
            figures.append(
                f'<figure><img src="{source}" alt="{escape(title)}">'
                f"<figcaption>{escape(title)}</figcaption></figure>"
            )
    if not figures:
        return ""
    return f'<section><h2>Curves</h2><div class="plots">{"".join(figures)}</div></section>'


def _classes(rows: Sequence[Report], kind: str) -> str:
    names = [n for n in (p + t for p in KINDS for t in TITLES) if any(n in row for row in rows)]
    if kind == "classification":  # a class's accuracy equals its recall
        names = [name for name in names if name != "accuracy"]
    counts = [name for name in COUNTS if kind != "classification" or name == "images"]
    heads = ("Class", *(COUNTS[name] for name in counts), *(_title(name) for name in names))
    cells = [
        (
            escape(row["name"]),
            *(f"{row.get(name, 0):,}" for name in counts),
            *(_bar(row.get(name)) for name in names),
        )
        for row in rows
    ]
    return f"<section><h2>Classes ({len(rows)})</h2>{_table(heads, cells)}</section>"


def _title(name: str) -> str:
    prefix = next((p for p in KINDS if p and name.startswith(p)), "")
    return KINDS[prefix] + TITLES[name[len(prefix) :]]


def _confusion(found: Report) -> str:
    """The confusion matrix as a table, and a list of its largest off-diagonal cells."""
    labels, matrix = found["labels"], np.array(found["matrix"], np.int64)
    background = found["confidence"] is not None
    kept = _confused(matrix, background)
    size = next(pixels for most, pixels in CELLS if len(kept) <= most or most > MOST_CLASSES)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    head = "".join(f"<th><span>{escape(labels[j])}</span></th>" for j in kept)
    body = []
    for i in kept:
        cells = "".join(_cell(labels, matrix, share, i, j) for j in kept)
        body.append(f"<tr><th>{escape(labels[i])}</th>{cells}</tr>")
    legend = (
        "Rows are true classes, columns predicted classes. The colour shows the share of the row."
    )
    if left_out := len(labels) - len(kept):
        legend += f" {left_out} of {len(labels) - background} classes are not shown, because they "
        legend += "have no or few errors." if len(kept) > MOST_CLASSES else "do not occur."
    at = f" at confidence {found['confidence']:g}" if background else ""
    return (
        f"<section><h2>Confusion matrix{at}</h2><p>{legend}</p>"
        f'<div class="wide"><table class="confusion" style="--cell:{size}px">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f"{_confusions(labels, matrix, background)}</section>"
    )


def _confused(matrix: Any, background: bool) -> list[int]:
    """Ids of the classes to show, ascending: those that occur, the MOST_CLASSES worst at most."""
    count = len(matrix) - background
    both = matrix.sum(0) + matrix.sum(1)
    chosen = np.flatnonzero(both[:count])
    if len(chosen) > MOST_CLASSES:
        wrong = (both - 2 * np.diag(matrix))[:count]
        chosen = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    return [*chosen.tolist(), count] if background else chosen.tolist()


def _cell(labels: Sequence[str], matrix: Any, share: Any, i: int, j: int) -> str:
    count = int(matrix[i, j])
    if not count:
        return "<td></td>"
    level = max(1, round(LEVELS * float(share[i, j])))
    title = f"{labels[i]} → {labels[j]}: {count} ({100 * share[i, j]:.0f} %)"
    kind = "right" if i == j else "wrong"
    shown = str(count) if count < 10_000 else f"{count // 1000}k"
    return f'<td class="{kind} l{level}" title="{escape(title)}">{shown}</td>'


def _confusions(labels: Sequence[str], matrix: Any, background: bool) -> str:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    truths, predictions = [*map(escape, labels)], [*map(escape, labels)]
    if background:
        truths[-1], predictions[-1] = "background (false positive)", "background (missed)"
    rows = [(truths[i], predictions[j], f"{int(wrong[i, j]):,}") for i, j in pairs if wrong[i, j]]
    if not rows:
        return ""
    table = _table(("Truth", "Predicted", "Count"), rows, texts=2)
    return f"<h3>Most frequent errors</h3>{table}"


def _worst(rows: Sequence[Report], folder: Path) -> str:
    figures = [
        f'<figure><img src="{source}" alt="ground truth and prediction">'
        f"<figcaption>{_image_title(row)}<br>{escape(row['reason'])}</figcaption></figure>"
        for row in rows
        if (source := _data_uri(folder / row["file"]))
    ]
    if not figures:
        return ""
    return (
        f"<section><h2>The {len(figures)} worst images</h2><p>The ground truth is on the left, "
        f'the prediction on the right.</p><div class="worst">{"".join(figures)}</div></section>'
    )


def _image_title(row: Report) -> str:
    """The image's name as users know it, and as the dataset has it."""
    if row.get("name"):
        return f"<b>{escape(row['name'])}</b> ({escape(row['image'])})"
    return f"<b>{escape(row['image'])}</b>"


def _definitions(found: Mapping[str, str]) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in found.items())
    return f"<section><h2>What the metrics mean</h2><dl>{items}</dl></section>" if items else ""


def _foot(report: Report, evaluation: str) -> str:
    thresholds = report["thresholds"]
    served = ", ".join(f"{k} {v}" for k, v in thresholds.items() if not isinstance(v, Mapping))
    facts = [
        f"Evaluation {evaluation}" if evaluation else "",
        f"job {report['job_id']}" if report.get("job_id") else "",
        f"data {report['dataset']['fingerprint']}",
        f"served with {served}" if served else "",
    ]
    return f"<footer>{escape(' · '.join(fact for fact in facts if fact))}</footer>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table of `heads` (text) and `rows` (HTML); the first `texts` columns are left-aligned."""
    kinds = [' class="text"'] * texts + [""] * (len(heads) - texts)

    def line(tag: str, cells: Sequence[str]) -> str:
        inside = "".join(f"<{tag}{k}>{c}</{tag}>" for k, c in zip(kinds, cells, strict=True))
        return f"<tr>{inside}</tr>"

    head, body = line("th", [*map(escape, heads)]), "".join(line("td", row) for row in rows)
    return (
        f'<div class="wide"><table class="figures"><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _bar(value: float | None) -> str:
    if value is None:
        return "–"
    return f'<span class="bar" style="--part:{100 * value:.0f}%">{value:.3f}</span>'


def _data_uri(path: Path) -> str:
    """The image file as a data URI; empty if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6776; --line: #d9dfe6;
  --ground: #fff; --raised: #f4f6f9; --right: 31 95 168; --wrong: 200 80 20 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #35404d;
  --ground: #12171d; --raised: #1b222b; --right: 80 150 230; --wrong: 235 120 50 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 88rem; margin: 0 auto; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem }
header p, footer, figcaption, section > p, dd { color: var(--soft) }
footer { margin-top: 2rem; font-size: .8rem; overflow-wrap: anywhere }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .7rem;
  margin-top: 1.2rem }
.tiles div { background: var(--raised); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .9rem }
.tiles b { display: block; font-size: 1.5rem; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.tiles span { color: var(--soft) }
.notes { border-left: 4px solid rgb(var(--wrong)); padding: .4rem 1.6rem; margin: 1rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.figures td, .figures th { padding: .2rem .8rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap }
.figures .text { text-align: left } .figures .text:first-child { padding-left: 0 }
.figures th { color: var(--soft); font-weight: 500 }
.bar { display: block; min-width: 4.5rem; padding: 0 .3rem;
  background: linear-gradient(90deg, rgb(var(--right) / .28) var(--part), transparent 0) }
.confusion { table-layout: fixed; width: max-content;
  font-size: clamp(8px, calc(var(--cell) / 2), 13px) }
.confusion td { width: var(--cell); height: var(--cell); min-width: var(--cell); padding: 0;
  text-align: center; border: 1px solid var(--line) }
.confusion th { font-weight: 400; font-size: max(10px, 1em); padding: 0 .4rem;
  line-height: 1.1; max-width: 12rem; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap }
.confusion tbody th { text-align: right; position: sticky; left: 0; background: var(--ground) }
.confusion thead th { padding: 0; height: 9rem; vertical-align: bottom; width: var(--cell) }
.confusion thead th:first-child { width: auto }
.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem;
  overflow: hidden; text-overflow: ellipsis; padding: .3rem 0 }
.confusion tr:hover th, .confusion tr:hover td { outline: 1px solid var(--soft) }
SHADES
.plots, .worst { display: grid; gap: 1rem; align-items: start }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)) }
.worst { grid-template-columns: repeat(auto-fill, minmax(min(36rem, 100%), 1fr)) }
figure { margin: 0; background: var(--raised); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem; break-inside: avoid }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: 4px;
  background: #fff }
figcaption { margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere }
dt { font-weight: 600 } dd { margin: 0 0 .6rem }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --ground: #fff; --raised: #fff }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  body { max-width: none; padding: 0; font-size: 10pt }
  .wide { overflow: visible } h2, h3 { break-after: avoid } tr { break-inside: avoid }
  .plots, .worst { grid-template-columns: 1fr 1fr }
  .confusion { font-size: 6px; --cell: 9px !important }
  .confusion tbody th { position: static }
}
""".replace(
    "SHADES",
    "\n".join(
        f".{kind}.l{level} {{ background: rgb(var(--{kind}) / {level / LEVELS:.2f})"
        f"{'; color: #fff' if level > LEVELS // 2 else ''} }}"
        for kind in ("right", "wrong")
        for level in range(1, LEVELS + 1)
    ),
)
