"""The tables of layouts and containers as facts: what `formats` returns, and prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lstmconvert.checks.page import Printed, ReportPage
from lstmconvert.containers import table as containers
from lstmconvert.containers.table import Container
from lstmconvert.files.jsontext import JsonObject
from lstmconvert.layouts.row import Row
from lstmconvert.layouts.rows import ROWS, row_of
from lstmconvert.model.fit import MERGE_MODES, OF_FRAMEWORKS
from lstmconvert.model.gates import by_letters
from lstmconvert.model.layer import CELL_PARTS, GATE_PARTS
from lstmconvert.model.model import KERAS, PER_GATE
from lstmconvert.tensors.dtypes import FLOATS

VERSION = 1
_ALWAYS = frozenset({"kernel", "recurrent_kernel"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutFacts:
    """How one framework arranges the gates.

    Fields: `name`, what `--to` and `layout=` take; `title`; `containers` that hold it;
    `gate_order`, None where there is one tensor for each gate; `transposed`: whether units are
    rows; `biases`, one or two; `forget_bias`, added at run time; `directions`, how many it has;
    `stacks`: whether it has several cells in one layer; `keeps`: the tensors that it can hold;
    `changes`: rounding losses; `cannot`: options that are refused; `tensors`, their names for an
    example; `oracle_run`: whether the real framework ran the weights in the tests; `evidence`:
    where the facts are from; `hint`: what its user has to know.
    """

    name: str
    title: str
    containers: tuple[str, ...]
    gate_order: tuple[str, ...] | None
    transposed: bool
    biases: int
    forget_bias: float
    directions: int
    stacks: bool
    keeps: tuple[str, ...]
    changes: tuple[str, ...]
    cannot: tuple[str, ...]
    tensors: tuple[str, ...]
    oracle_run: bool
    evidence: str
    hint: str

    def to_json(self) -> JsonObject:
        """Return the facts by name."""
        return _json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """One kind of file.

    Fields: `container`, what `--json` calls it; `title`; `suffixes`; `read` and `written`: whether
    it is; `default`, the layout that it is written in where none is named; `layouts` that it holds;
    `by`: what makes or takes it; `notes`; `needs`: the extra of this package that it takes;
    `check`: whether it has a place for one input and what the model gives for it.
    """

    container: str
    title: str
    suffixes: tuple[str, ...]
    read: bool
    written: bool
    default: str | None
    layouts: tuple[str, ...]
    by: str
    notes: str
    needs: str | None
    check: bool

    def to_json(self) -> JsonObject:
        """Return the facts by name."""
        return _json(self)


def _json(value: LayoutFacts | FileFacts) -> JsonObject:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Formats(Printed):
    """What is read and written. It prints as `lstmconvert formats` does.

    Fields: `layouts`; `files`; `asked`: the one layout that was asked for, or None.
    """

    layouts: tuple[LayoutFacts, ...]
    files: tuple[FileFacts, ...]
    asked: str | None = None

    def __repr__(self) -> str:
        return f"Formats({len(self.layouts)} layouts, {len(self.files)} kinds of files)"

    def to_json(self) -> JsonObject:
        """Return all facts as one JSON object."""
        return {
            "version": VERSION,
            "layouts": [layout.to_json() for layout in self.layouts],
            "files": [file.to_json() for file in self.files],
        }

    def show(self, page: ReportPage) -> None:
        """Write the tables to a page, or the description of a single layout."""
        if self.asked is not None:
            _show_one(page, self.layouts[0])
            return
        _show_layouts(page, self.layouts)
        page.line()
        _show_files(page, self.files)


def formats(layout: str | None = None) -> Formats:
    """Return the layouts that `layout=` takes, and the kinds of files that are read and written.

    >>> formats("torch").layouts[0].gate_order
    ('input', 'forget', 'cell', 'output')

    Args:
        layout: tell of this one alone.

    Raises:
        UsageError: the layout is unknown.
    """
    if layout not in (None, PER_GATE, KERAS):
        row_of(str(layout))  # raises, and names a close match
    every = (_per_gate(), *(_layout(row) for row in ROWS.values()))
    return Formats(
        layouts=tuple(each for each in every if layout in (None, each.name)),
        files=tuple(_file(row) for row in containers.CONTAINERS),
        asked=layout,
    )


def _holders(layout: str) -> tuple[str, ...]:
    return tuple(row.name for row in containers.holders(layout) if not row.is_keras)


def _per_gate() -> LayoutFacts:
    """Return the facts of the per-gate layout, which has no row: it keeps all, under our names."""
    return LayoutFacts(
        name=PER_GATE,
        title="one tensor for each gate, under our names",
        containers=_holders(PER_GATE),
        gate_order=None,
        transposed=False,
        biases=2,
        forget_bias=0.0,
        directions=2,
        stacks=True,
        keeps=(*GATE_PARTS, *CELL_PARTS),
        changes=(),
        cannot=(),
        tensors=("forget_gate.kernel", "forget_gate.recurrent_kernel", "forget_gate.bias"),
        oracle_run=True,
        evidence="the format of this program",
        hint="Everything comes back from it, bit for bit.",
    )


def _layout(row: Row) -> LayoutFacts:
    from lstmconvert.layouts.read import example

    return LayoutFacts(
        name=row.name,
        title=row.title,
        containers=_holders(row.name),
        gate_order=tuple(str(gate) for gate in by_letters(row.order)),
        transposed=any(slot.transposed for slot in row.slots),
        biases=2 if "recurrent_bias" in row.parts else 1,
        forget_bias=row.forget_bias,
        directions=1 if row.single else 2,
        stacks=row.index is not None,
        keeps=tuple(part for part in (*GATE_PARTS, *CELL_PARTS) if part in row.parts),
        changes=tuple(_changes(row)),
        cannot=tuple(_cannot(row)),
        tensors=tuple(example(row)),
        oracle_run=row.run,
        evidence=row.evidence,
        hint=row.hint,
    )


def _file(row: Container) -> FileFacts:
    return FileFacts(
        container=row.name,
        title=row.title,
        suffixes=row.suffixes,
        read=row.known is not None,
        written=row.written,
        default=row.default,
        layouts=tuple(containers.layouts_of(row, ROWS)) if row.written else (),
        by=row.by,
        notes=row.notes,
        needs=row.needs,
        check=row.written and row.takes("check"),
    )


def _show_layouts(page: ReportPage, layouts: Iterable[LayoutFacts]) -> None:
    rows = [
        (
            layout.name,
            layout.title,
            "".join(gate[0] for gate in layout.gate_order or ()) or "-",
            " ".join(layout.containers),
            "yes" if layout.oracle_run else "no",
        )
        for layout in layouts
    ]
    page.table(rows, header=("layout", "framework", "gates", "kinds of files", "run here"))
    page.line()
    written = (row for row in containers.written() if row.is_keras)
    page.paragraph(
        "run here: whether the real framework ran converted weights in the tests; the others are "
        "known from their source. lstmconvert formats LAYOUT tells more of one. Keras's own files "
        f"({', '.join(containers.main_suffixes(written))}) hold the layout keras.",
        indent=2,
    )


def _show_files(page: ReportPage, files: Iterable[FileFacts]) -> None:
    rows = [
        (
            file.title,
            " ".join(file.suffixes) or "-",
            "yes" if file.read else "no",
            file.default or ("by --to" if file.written else "no"),
        )
        for file in files
    ]
    page.table(rows, header=("file", "suffixes", "read", "written as"))


def _show_one(page: ReportPage, layout: LayoutFacts) -> None:
    forget_bias = f"{layout.forget_bias:g} at run time" if layout.forget_bias else "none"
    page.line(f"{layout.name}: {layout.title}", bold=True)
    rows = [
        ("files", " ".join(layout.containers)),
        ("tensors", ", ".join(layout.tensors)),
        ("gate order", " ".join(layout.gate_order or ["one tensor each"])),
        ("transposed", "yes, units are rows" if layout.transposed else "no"),
        ("biases", str(layout.biases)),
        ("forget bias", forget_bias),
        ("keeps", ", ".join(layout.keeps)),
        ("changes", "; ".join(layout.changes) or "nothing"),
        ("cannot", ", ".join(layout.cannot) or "-"),
        ("run here", "yes" if layout.oracle_run else "no, known from source"),
        ("source", layout.evidence),
    ]
    for label, text in rows:
        page.paragraph(text, indent=2, label=label, hang=13)
    page.line()
    page.paragraph(layout.hint, indent=2)


def _changes(row: Row) -> list[str]:
    result = []
    if "recurrent_bias" not in row.parts:
        result.append("a second bias is added to the first, rounded")
    if row.forget_bias:
        result.append(f"the forget bias is stored less {row.forget_bias:g}, rounded")
    return result


def _cannot(row: Row) -> list[str]:
    functions = {
        "activation": row.activation,
        "recurrent_activation": row.recurrent_activation,
    }
    result = [
        _other_than(option, allowed.names())
        for option, allowed in functions.items()
        if not allowed.is_any
    ]
    result += [option for option in OF_FRAMEWORKS if option not in row.expresses]
    if row.bidirectional and len(row.merge_modes) == 1:
        result.append("merge_mode")
    elif row.bidirectional and len(row.merge_modes) < len(MERGE_MODES):
        result.append(_other_than("merge_mode", map(str, row.merge_modes)))
    if len(row.dtypes) < len(FLOATS):
        result.append(_other_than("dtype", row.dtypes))
    if row.single:
        result.append("two directions")
    if row.paired:
        result.append("one direction")
    absent = {*GATE_PARTS, *CELL_PARTS} - row.parts - _ALWAYS - {"bias", "recurrent_bias"}
    return result + [part for part in (*GATE_PARTS, *CELL_PARTS) if part in absent]


def _other_than(option: str, allowed: Iterable[str]) -> str:
    """Return `activation other than tanh`, or of several `activation (other than relu or tanh)`."""
    *rest, last = allowed
    return (
        f"{option} (other than {', '.join(rest)} or {last})"
        if rest
        else (f"{option} other than {last}")
    )
