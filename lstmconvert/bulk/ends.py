"""The two ends of one conversion, as files of this machine, wherever they are.

A source in a store is fetched when it is needed, into a temporary folder, and with it the files
beside it that it turns out to name. A destination in a store is made in such a folder and sent up
when it is whole. Errors name the URL, not the temporary path.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lstmconvert.bulk import scratch, stores
from lstmconvert.bulk.outcome import FileIdentity
from lstmconvert.bulk.stores import facts_of
from lstmconvert.errors import DestinationError, LSTMConvertError, SourceError, UsageError
from lstmconvert.files import neighbours
from lstmconvert.files.names import is_url

if TYPE_CHECKING:
    from lstmconvert.bulk.plan import Job
    from lstmconvert.model.model import Model


#: How many models of a folder an error lists.
_SHOWN = 5


class Ends(contextlib.AbstractContextManager["Ends"]):
    """Source and destination of a job, for a `with` block.

    Args:
        job: the conversion.
        again: whether this run may have begun it before, so that listings are out of date.
    """

    def __init__(self, job: Job, *, again: bool = False) -> None:
        self._job, self._open = job, contextlib.ExitStack()
        origin, target = job.origin, job.target
        self._origin = (
            stores.single(job.source).remote if origin is None and _far(job.source) else origin
        )
        if target is None and _far(job.destination):
            target = stores.single(job.destination).remote
        if target is not None and (again or not target.is_listed):
            target = target.looked_up()
        self._target = target
        #: Temporary paths, and the URLs that they represent.
        self._stands_for: dict[str, str] = {}

    def __exit__(self, *raised: object) -> None:
        self._open.close()
        _, error, _ = raised
        if isinstance(error, LSTMConvertError) and error.where is not None:
            for path, url in self._stands_for.items():
                error.where = error.where.replace(path, url)

    # -- the source --------------------------------------------------------------------------------

    @cached_property
    def source(self) -> Path:
        """The source as a file or folder of this machine."""
        remote = self._origin
        if remote is None:
            return Path(self._job.source)
        folder = self._open.enter_context(scratch.folder())
        self._stands_for[str(folder)] = remote.url.rpartition("/")[0]
        path = folder / remote.name
        if remote.is_folder:
            stores.fetch_folder(remote, path)
            return path
        for name in _belonging(remote):
            stores.fetch(remote.sibling(name), folder / name)
        if not _is_prefix(remote, folder):
            stores.fetch(remote, path)
        return path

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path]:
        """Yield the source; the other files that it names are fetched when they are needed."""
        path, remote = self.source, self._origin
        if remote is None:
            yield path
            return

        def fetch(missing: Path) -> None:
            if missing.parent != path.parent:  # a file beside another model
                return
            with contextlib.suppress(
                LSTMConvertError
            ):  # whoever wants it says that it is not there
                stores.fetch(remote.sibling(missing.name), missing)

        with neighbours.fetched(fetch):
            yield path

    def was_read(self, model: Model, options: Mapping[str, Any]) -> tuple[FileIdentity, ...]:
        """Return the facts of what a model was read from. A hash that was taken is used."""
        from lstmconvert.containers import table
        from lstmconvert.model.model import KERAS

        path, row = self.source, table.container(model.container)
        is_keras = row is not None and row.is_keras and model.layout == KERAS
        if is_keras and not model.source.files and not model.is_converted and path.is_file():
            facts = FileIdentity(path.name, os.stat(path).st_size, model.source.sha256)
            return (self._with_etag(facts, self._origin),)
        return self._facts(options, [each.name for each in model.source.files if each != path])

    def is_source(self, known: Sequence[FileIdentity], options: Mapping[str, Any]) -> bool:
        """Whether the source, with the files that belong to it, has the same bytes as before."""
        names = [each.name for each in known[1:]]
        if self._origin is not None and all(each.etag is not None for each in known):
            remotes = [self._origin, *(self._origin.sibling(name) for name in names)]
            remotes = [each if each.is_listed else each.looked_up() for each in remotes]
            if all(each.etag is not None for each in remotes):
                return [(each.size, each.etag) for each in remotes] == [
                    (each.size, each.etag) for each in known
                ]
        return [each.sha256 for each in self._facts(options, names)] == [
            each.sha256 for each in known
        ]

    def _facts(
        self, options: Mapping[str, Any], names_beside: list[str]
    ) -> tuple[FileIdentity, ...]:
        from lstmconvert import api

        path, remote = self.source, self._origin
        if path.is_file():
            names = [path.name, *names_beside]
            return tuple(
                self._with_etag(facts_of(path.with_name(name)), remote and remote.sibling(name))
                for name in names
            )
        with self.reading():
            digest = api.load(path, layout=options.get("from_layout")).source.sha256
        return (FileIdentity(path.name, None, digest),)

    @staticmethod
    def _with_etag(facts: FileIdentity, remote: stores.Remote | None) -> FileIdentity:
        if remote is None:
            return facts
        remote = remote if remote.is_listed else remote.looked_up()
        return facts._replace(etag=remote.etag if remote.size in (None, facts.size) else None)

    # -- the destination ---------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether something is at the destination."""
        if self._target is not None:
            return self._target.size is not None
        return os.path.lexists(self._job.destination)

    def holds(self, made: Sequence[FileIdentity], copies: Sequence[Path] = ()) -> bool:
        """Whether the destination and the files that belong to it are these files.

        Args:
            made: the facts of the files that they should be.
            copies: files of this machine that have these bytes, if there are any.
        """
        target = self._target
        if target is None:
            folder = Path(self._job.destination).parent
            return all(_is(folder / each.name, each) for each in made)
        places = [target, *(target.sibling(each.name) for each in made[1:])]
        known: Sequence[Path | None] = copies or [None] * len(made)
        return all(map(stores.holds, places, made, known))

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[Path]:
        """Yield a path in a temporary folder, with the name of the destination."""
        with scratch.folder() as folder:
            self._stands_for[str(folder)] = self._job.destination.rpartition("/")[0]
            yield folder / stores.name_of(self._job.destination)

    @contextlib.contextmanager
    def writing(self, *, dry: bool) -> Iterator[Path]:
        """Yield the path to write to. `sent` then brings the files where they belong.

        Args:
            dry: whether nothing will be written, so that no folder is made there either.

        Raises:
            DestinationError: it cannot be written, or is a folder in a store.
        """
        if self._target is not None:
            _check_file(self._target)
        if dry or self._target is not None:
            with self.elsewhere() as path:
                yield path
            return
        path = Path(self._job.destination)
        folder = path.parent
        if not os.path.isdir(folder):  # as it is, of all files of a folder but the first
            with stores.errors(DestinationError, str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
        yield path

    def sent(self, files: Sequence[Path], *, force: bool) -> tuple[FileIdentity, ...]:
        """Bring what was written to the destination, and return its facts."""
        if self._target is None or not files:
            return tuple(map(facts_of, files))
        if self.exists and not force:
            raise _exists(self._target.url)
        return stores.send(list(files), self._target, force=force)


def is_missing(job: Job) -> bool:
    """Whether nothing is known to be at the destination. No store is asked for it."""
    if job.target is not None:
        return job.target.is_listed and job.target.size is None
    return not _far(job.destination) and not os.path.lexists(job.destination)


@contextlib.contextmanager
def brought(url: str) -> Iterator[Path]:
    """Yield the model that a URL names, as a file or folder of this machine.

    It is copied to a temporary folder first, within the limits of a download, and removed at the
    end.

    Raises:
        SourceError, LimitExceeded: it is not there, does not come, or is too large.
        MissingPackage, UsageError: URLs of that kind cannot be read; several models are there.
    """
    from lstmconvert.bulk.plan import Job

    scratch.sweep()
    with Ends(Job(url, "", origin=_only_model(url))) as ends, ends.reading() as path:
        yield path


def _only_model(url: str) -> stores.Remote:
    places = list(islice(stores.expanded(url, Counter()), _SHOWN + 1))
    if len(places) != 1:
        listed = ", ".join(each.place for each in places[:_SHOWN])
        raise UsageError(
            "a folder of several models" if places else "a folder without a model",
            where=url,
            found=listed + ", …" * (len(places) > _SHOWN) if places else None,
            expected="one model",
            hint="lstmconvert batch takes whole folders",
        )
    return places[0].remote


@contextlib.contextmanager
def going_to(url: str, *, source: str, force: bool, dry: bool) -> Iterator[Sending]:
    """Yield where to write what a URL shall hold, and what sends it there.

    Args:
        url: of the destination.
        source: path or URL of what is converted.
        force: replace an object that exists.
        dry: whether nothing will be written.

    Raises:
        DestinationError: it is the source, or exists (and no `force`), or cannot be looked at.
    """
    from lstmconvert.bulk.plan import Job

    if source == url:
        raise DestinationError("source and destination are the same file", where=url)
    scratch.sweep()
    with Ends(Job("", url)) as ends:
        if ends.exists and not force:
            raise _exists(url)
        with ends.writing(dry=dry) as path:
            yield Sending(path, partial(ends.sent, force=force))


class Sending(NamedTuple):
    """Where to write what a store shall hold, and what then sends those files there."""

    path: Path
    send: Callable[[Sequence[Path]], tuple[FileIdentity, ...]]


def _check_file(remote: stores.Remote) -> None:
    from lstmconvert.containers import table

    rows = [row for row in table.written() if row.as_folder]
    if table.suffix_of(remote.name, rows) is not None:
        raise DestinationError(
            f"{rows[0].title} is a folder, and files alone are sent to a store",
            where=remote.url,
            hint="write it to this machine, and copy the folder with the store's own tool",
        )


def _exists(url: str) -> DestinationError:
    return DestinationError("the destination exists", where=url, hint="--force replaces it")


def _far(path: str) -> bool:
    return is_url(path)


def _is(path: Path, facts: FileIdentity) -> bool:
    """Whether a file has certain bytes. Its size is looked at first."""
    try:
        if facts.size is None:
            return path.is_dir() and facts_of(path).sha256 == facts.sha256
        if not path.is_file() or path.stat().st_size != facts.size:
            return False
        return facts_of(path).sha256 == facts.sha256
    except (OSError, LSTMConvertError):
        return False


#: The end of the name of a checkpoint's index; the text that is added to the name of a checkpoint
#: by its files: index, data, and the graph of TensorFlow 1.
_INDEX = ".index"
_CHECKPOINT = (_INDEX, ".data-", ".meta")
#: The end of the name of a sharded weights file; its shards have names that begin as its own does.
_INDEX_OF_SHARDS = ".weights.json"


def _belonging(remote: stores.Remote) -> list[str]:
    """Return the names of files that make up a model with the one that is named."""
    name = remote.name
    if name.endswith(_INDEX_OF_SHARDS):
        base = name.removesuffix(_INDEX_OF_SHARDS)
        begin = remote.sibling(f"{base}_")
        return [each for each in stores.names_that_begin(begin) if each.endswith(".weights.h5")]
    if name.endswith(_INDEX):
        prefix = remote.sibling(name.removesuffix(_INDEX))
        return [each for each in _checkpoint(prefix) if each != name]
    if "." in name.lstrip(".") and _has_suffix(name):
        return []
    try:
        return _checkpoint(remote)  # perhaps: its name is how those of its files begin
    except SourceError:
        if stores.is_page(remote.url):  # few servers list the other files of a page's folder
            return []
        raise


def _has_suffix(name: str) -> bool:
    from lstmconvert.containers import table

    return table.suffix_of(name, table.read()) is not None


def _checkpoint(remote: stores.Remote) -> list[str]:
    names = stores.names_that_begin(remote)
    return [each for each in names if each[len(remote.name) :].startswith(_CHECKPOINT)]


def _is_prefix(remote: stores.Remote, folder: Path) -> bool:
    return (folder / f"{remote.name}.index").is_file()
