"""A survey of many files: which weight files are there, and which of them hold the same network."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from htsr.audit.progress import tqdm
from htsr.comparison.survey.digests import same_files
from htsr.comparison.survey.families import Link, family_numbers, link_networks, network_numbers
from htsr.comparison.survey.files import WeightFile, find_files
from htsr.comparison.survey.networks import Network, open_network
from htsr.comparison.survey.relations import Relation
from htsr.errors import InputError
from htsr.text import encodable, escaped, visible
from htsr.weights.readers.formats import BY_SUFFIX

AnyPath = str | os.PathLike[str]

FILE_COLUMNS = {
    "family": "Int64", "network": "Int64", "path": "str", "format": "str", "size": "Int64", "tensors": "Int64",
    "matrices": "Int64", "parameters": "Int64", "dtype": "str", "relation": "str", "to": "str", "evidence": "str",
    "reason": "str",
}  # fmt: skip
FAMILY_COLUMNS = {"family": "Int64", "files": "Int64", "networks": "Int64", "reference": "str", "parameters": "Int64"}
LAYER_COLUMNS = {
    "path": "str", "to": "str", "name": "str", "name_to": "str", "relation": "str", "transposed": "bool",
    "relative_change": "float64", "largest_difference": "float64", "correlation": "float64",
}  # fmt: skip


# What stands between a relation and the file it leads to, where it is not "as".
JOINTS = {
    "part of": "",
    "transposed": " from",
    "quantised": " from",
    "fine-tuned": ", against",
    "shares weights": " with",
}


def survey(paths: AnyPath | Sequence[AnyPath], *, progress: bool | None = None) -> "Survey":
    """Find weight files, and say which of them hold the same network: in another format or type, quantised, fine-tuned.

    Args:
        paths: A directory, which is searched with everything below it; a file; the name of an installed package, such as
            ``"silero-vad"``, which is not imported; or a list of these. A path wins over a package of the same name.
        progress: True or False shows or hides the progress bars; by default as in ``analyze``.

    Returns:
        The survey. A file that cannot be read has a row with the reason.

    Raises:
        FileNotFoundError: If an input is neither a path nor the name of an installed package.
        InputError: If none of the inputs holds a weight file.
        TypeError: If an input is neither a path nor a name.

    Notes:
        Matrices are compared as ``analyze`` sees them: with quantised weights multiplied out, and cut into parts such as the
        gates of an LSTM. Partners are found by name and, where names differ, by shape and values, also transposed. Only files
        that share shapes with another one are read, one matrix at a time. Each is compared in full with one other file: the
        closest among those that hold more weights, or hold them more precisely.

        Values are equal *within rounding* if they differ by at most half a unit in the last place of the narrower type. They are
        *quantised* if one file stores them in a type for quantised weights, and neighbouring values keep their order, as they do
        when each is replaced by a level near it. A quantised file of a network that was fine-tuned by less than the quantisation
        error looks the same. Of two fine-tuned files, the values do not say which came first.

    Example:
        >>> import tempfile, htsr, numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> weights = np.random.default_rng(0).normal(size=(60, 40)).astype("float32")
        >>> np.savez(f"{folder}/model.npz", fc=weights)
        >>> np.savez(f"{folder}/model_fp16.npz", dense=weights.astype("float16"))
        >>> s = htsr.survey(folder)
        >>> s.files[["relation", "family", "network"]]
               relation  family  network
        0     reference       1        1
        1  same weights       1        1
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    for path in given:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"expected paths or names of packages, got {type(path).__name__} {path!r:.50}")
    entries, without = find_files(given)
    if not entries:
        looked = ", ".join(map(str, without)) or "an empty list"
        raise InputError(f"{looked}: no weight file found; expected files such as *{', *'.join(BY_SUFFIX)}")

    def watch(numbers: Sequence[int], what: str) -> Iterable[int]:
        bar = tqdm(numbers, desc=what, unit="file", delay=1, disable=None if progress is None else not progress)
        for number in bar:
            bar.set_postfix_str(visible(entries[number].path.name), refresh=False)
            yield number

    names = [entry.path.name for entry in entries]
    copies = same_files(entries)
    networks: dict[int, Network] = {}
    reasons: dict[int, str] = {}
    for number in watch([number for number in range(len(entries)) if number not in copies], "open"):
        try:
            networks[number] = open_network(entries[number])
        except (InputError, OSError, MemoryError, ImportError) as err:
            reasons[number] = str(err).removeprefix(f"{entries[number].path}: ") or "out of memory"
        # names, shapes and settings of a stranger's file may be anything; the other files are surveyed
        except Exception as err:
            reasons[number] = f"its names, shapes and settings make no sense together ({type(err).__name__}: {err})"
    links = link_networks(networks, names, watch)
    for number, (first, kind) in copies.items():
        text = "both paths lead to one file" if kind == "same file" else f"all {entries[number].size:,} bytes equal"
        links[number] = Link(first, Relation(kind, text))
        if first in networks:
            networks[number] = networks[first]
        else:
            reasons[number] = reasons[first]
    return _results(entries, networks, reasons, links, tuple(without))


def _results(
    entries: Sequence[WeightFile],
    networks: Mapping[int, Network],
    reasons: Mapping[int, str],
    links: Mapping[int, Link],
    without: tuple[str, ...],
) -> "Survey":
    """Return the tables of a survey."""
    known = [number for number in range(len(entries)) if number in networks]
    families, numbers = family_numbers(known, links), network_numbers(known, links)
    paths = [str(entry.path) for entry in entries]
    kin = {number for number, link in links.items() if link.relation.kind != "same shapes"}
    referred = {links[number].to for number in kin}
    rows = []
    for number, entry in enumerate(entries):
        network, link = networks.get(number), links.get(number)
        row: dict[str, object] = {
            "family": families.get(number), "path": paths[number], "format": entry.format(),
            "size": entry.size, "reason": reasons.get(number, ""),
            "relation": "reference" if number in referred else "alone" if network else "",
        }  # fmt: skip
        if network:
            row |= {
                "tensors": network.tensors, "matrices": len(network.layers), "parameters": network.parameters,
                "dtype": ", ".join(network.dtypes), "reason": _lost(network),
            }  # fmt: skip
        if link:
            row |= {"relation": link.relation.kind, "to": paths[link.to], "evidence": link.relation.evidence}
        rows.append(row)
    # a file that others refer to stands before them
    order = sorted(range(len(rows)), key=lambda i: (i not in networks, families.get(i, 0), numbers.get(i, 0), i in kin))
    shown = {
        number: place for place, number in enumerate(dict.fromkeys(numbers[i] for i in order if i in numbers), start=1)
    }
    for i, number in numbers.items():
        rows[i]["network"] = shown[number]
    files = _frame([rows[i] for i in order], FILE_COLUMNS)
    layers = [
        {
            "path": paths[number], "to": paths[link.to], "name": item.name, "name_to": item.name_to,
            "relation": item.difference.kind, "transposed": item.transposed,
            "relative_change": item.difference.relative_change, "largest_difference": item.difference.largest,
            "correlation": item.difference.correlation,
        }
        for number in order if (link := links.get(number)) for item in link.relation.shared
    ]  # fmt: skip
    return Survey(files, _families(files), _frame(layers, LAYER_COLUMNS), without)


def _lost(network: Network) -> str:
    """Return how many matrices of a network cannot be read, and why the first cannot."""
    if not network.unread:
        return ""
    return f"{_count(len(network.unread), 'matrix', 'matrices')} cannot be read: {next(iter(network.unread.values()))}"


def _families(files: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each family."""
    rows = []
    for family, members in files.groupby("family", sort=True):
        first = members.iloc[0]
        rows.append(
            {
                "family": family, "files": len(members), "networks": members["network"].nunique(),
                "reference": first["path"], "parameters": first["parameters"],
            }
        )  # fmt: skip
    return _frame(rows, FAMILY_COLUMNS)


def _frame(rows: Sequence[Mapping[str, object]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a table with all of these columns; a missing text is empty, a missing number missing."""
    return pd.DataFrame(
        {name: pd.array([_cell(row.get(name), dtype) for row in rows], dtype=dtype) for name, dtype in columns.items()}
    )


def _cell(value: object, dtype: str) -> object:
    """Return a value as a table of this type holds it."""
    if dtype == "str":
        return encodable(str(value or ""))
    return pd.NA if value is None else value


@dataclass(frozen=True, repr=False, eq=False)
class Survey:
    """The result of ``survey``.

    Attributes:
        files: One row for each weight file, families together: ``family``; ``network``, the same for files with the same weights;
            ``path``; ``format``; ``size`` in bytes; the numbers of ``tensors``, ``matrices`` and ``parameters``; ``dtype``;
            ``relation`` to the file ``to``, with the ``evidence``; and the ``reason`` if it cannot be read.
        families: One row for each family: its numbers of files and networks, and its ``reference``, the file that the others
            are compared with.
        layers: One row for each matrix that a file shares with the file ``to``: how the two differ.
        without: Inputs in which there is no weight file.
    """

    files: pd.DataFrame
    families: pd.DataFrame
    layers: pd.DataFrame
    without: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def headline(self) -> str:
        """One line: how many files, networks and families there are."""
        read = self.files[self.files["family"].notna()]
        lost = len(self.files) - len(read)
        parts = [
            _count(len(self.files), "weight file", "weight files"),
            _count(read["network"].nunique(), "network", "networks"),
            _count(read["family"].nunique(), "family", "families"),
        ]
        text = f"{parts[0]}: {parts[1]} in {parts[2]}" if len(read) else parts[0]
        text += f"; {lost} cannot be read" if lost else ""
        return text + "".join(f"\nno weight file in {visible(path)}" for path in self.without)

    def brief(self) -> pd.DataFrame:
        """The columns of ``files`` that fit on a terminal, with paths as short as they can be and the relation as a text."""
        short = self._short()
        return pd.DataFrame(
            {
                "network": ["" if pd.isna(number) else str(number) for number in self.files["network"]],
                "file": [short[path] for path in self.files["path"]],
                "format": self.files["format"],
                "size": [_bytes(size) for size in self.files["size"]],
                "parameters": ["" if pd.isna(count) else f"{count:,}" for count in self.files["parameters"]],
                "dtype": self.files["dtype"],
                "relation": [
                    ": ".join(filter(None, (_relation(row, short), _evidence(row))))
                    for row in self.files.to_dict("records")
                ],
            }
        )

    def save(self, path: str | Path) -> Path:
        """Write the survey.

        Args:
            path: Where to. The suffix picks the format: ``.html`` a self-contained page, ``.json`` files, families and layers,
                ``.csv`` and ``.parquet`` the files.

        Returns:
            The path written.

        Raises:
            InputError: If the suffix is none of these, or ``.parquet`` is asked for without pyarrow (``htsr[parquet]``).
        """
        from htsr.report.save import save_survey

        return save_survey(self, Path(path))

    def __repr__(self) -> str:
        sizes = self.families.set_index("family")
        alone = self.files["family"].map(sizes["files"]) == 1
        lost = self.files["family"].isna()
        blocks = [self.headline()]
        for family, rows in self.files[~alone & ~lost].groupby("family", sort=True):
            networks = _count(sizes.loc[family, "networks"], "network", "networks")
            blocks.append(f"family {family}: {len(rows)} files, {networks}\n{self._block(rows)}")
        for title, rows in (
            ("no relative among these files", self.files[alone & ~lost]),
            ("not read", self.files[lost]),
        ):
            if len(rows):
                blocks.append(f"{title}: {_count(len(rows), 'file', 'files')}\n{self._block(rows)}")
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        table = self.brief().assign(family=self.files["family"])
        shown = table[["family", *table.columns[:-1]]].to_html(index=False, max_rows=100, border=0)
        return f"<p>{escape(self.headline()).replace(chr(10), '<br>')}</p>{shown}"

    def _block(self, rows: pd.DataFrame) -> str:
        """Return the rows of some files as text, each relation's evidence and each reason on a line of its own."""
        short, table = self._short(), self.brief().loc[rows.index]
        table["relation"] = [_relation(row, short) for row in rows.to_dict("records")]
        lines = _text(table.drop(columns="network") if rows["network"].isna().all() else table)
        below = [_evidence(row) for row in rows.to_dict("records")]
        return "\n".join(
            [lines[0], *(f"{line}\n      {why}" if why else line for line, why in zip(lines[1:], below, strict=True))]
        )

    def _short(self) -> dict[str, str]:
        """Return every path without the folders that all of them have in common."""
        full = {path: os.path.abspath(path) for path in self.files["path"]}
        try:
            common = os.path.commonpath([os.path.dirname(path) for path in full.values()])
        except ValueError:  # paths on several drives
            return {path: visible(path) for path in full}
        return {path: visible(os.path.relpath(there, common)) for path, there in full.items()}


def _relation(row: Mapping[str, object], short: Mapping[str, str]) -> str:
    """Return the relation of a file and the file that it leads to, for people."""
    kind = str(row["relation"])
    return f"{kind}{JOINTS.get(kind, ' as')} {short[str(row['to'])]}" if row["to"] else kind


def _evidence(row: Mapping[str, object]) -> str:
    """Return the evidence for a relation, and why a file or a part of it cannot be read, for people."""
    return escaped("; ".join(str(row[name]) for name in ("evidence", "reason") if row[name]))


def _text(table: pd.DataFrame) -> list[str]:
    """Return the header and the rows of a table, with numbers to the right and all other columns to the left."""
    columns = []
    for name in table.columns:
        cells = [str(name), *map(str, table[name])]
        width = max(map(len, cells))
        right = name in ("network", "size", "parameters")
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _bytes(size: int) -> str:
    """Return a number of bytes for people, in powers of 1000 as disks count."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.3g} {units[0]}"
