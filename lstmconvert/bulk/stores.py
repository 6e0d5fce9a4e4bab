"""What is behind a URL: objects of S3, files of the Hub, pages, whatever fsspec reaches.

A URL is what the user gives, never what a file says. It is split once, into a file system and
a path in it, so that no character of a key has a special meaning later. What a listing says about
sizes and ETags is kept: a resumed run asks for nothing else.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import inspect
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lstmconvert import limits
from lstmconvert.bulk.listing import search
from lstmconvert.bulk.outcome import FileIdentity
from lstmconvert.errors import (
    DestinationError,
    LSTMConvertError,
    MissingPackage,
    SourceError,
    UsageError,
    install,
)
from lstmconvert.files import opening
from lstmconvert.files.names import URL_MARK, is_url

T = TypeVar("T")

_CHAIN = "::"
#: The extras of this package that bring what a kind of URL needs, where `remote` does not.
_EXTRAS = {"gs": "gcs", "gcs": "gcs"}
#: The keys of listings that stand for an object's content, by store.
_ETAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "blob_id", "oid", "sha256", "checksum")
#: Answers of a server that may be another the next time: too early, too many, overloaded, gone.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
#: S3 takes an object of this size in one request, and its ETag is the MD5 of its bytes then.
_ONE_REQUEST = 5 * limits.MIB
#: No wait before another try is longer, in seconds.
_LONGEST_WAIT = 30.0


class Remote(NamedTuple):
    """A place in a store.

    Fields: `url`: what the user knows it by; `system`: the file system; `path` in it; `size` in
    bytes and `etag`, if they are known; `is_listed`: whether a listing was asked, so that no size
    means that nothing is there; `is_folder`: whether it is a folder that is one model.
    """

    url: str
    system: Any
    path: str
    size: int | None = None
    etag: str | None = None
    is_listed: bool = False
    is_folder: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return name_of(self.url)

    def sibling(self, name: str) -> Remote:
        """Return the place of a file in the same folder."""
        url, path = self.url, self.path
        if is_page(url):  # what asks a page for something is not part of its path
            url = path = url.partition("?")[0]
        url, path = (f"{text.rpartition('/')[0]}/{name}" for text in (url, path))
        return self if path == self.path else Remote(url, self.system, path)

    def looked_up(self) -> Remote:
        """Return the place with what the store says about it now."""
        with errors(SourceError, self.url):
            try:
                entry = patiently(lambda: self.system.info(self.path))
            except FileNotFoundError:
                return self._replace(size=None, etag=None, is_listed=True)
        return self._replace(size=_size(entry), etag=etag_of(entry), is_listed=True)


def name_of(url: str) -> str:
    """Return the last part of a path or URL. A page's query is not part of it."""
    if is_url(url) and is_page(url):
        url = url.partition("?")[0].partition("#")[0]
    return url.replace("\\", "/").rstrip("/").rpartition("/")[2]


def is_page(url: str) -> bool:
    """Whether a URL is that of a page of the web, which has no folder to list."""
    return url.startswith(("http://", "https://"))


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        MissingPackage: fsspec, or the package for that kind of URL, is not installed.
        UsageError: URLs of that kind are not supported.
    """
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingPackage(
            f"fsspec, which reads URLs, is not installed: {error}",
            where=url,
            hint=install("remote"),
        ) from None
    try:
        if _CHAIN in url.partition(URL_MARK)[0]:  # file systems behind file systems
            system, path = url_to_fs(url)
            return system, str(path)
        kind = fsspec.get_filesystem_class(url.partition(URL_MARK)[0])
        options = kind._get_kwargs_from_urls(url)
        if "versionId=" in url and "version_aware" in inspect.signature(kind).parameters:
            options["version_aware"] = True
        path = str(kind._strip_protocol(url))
        if not path.startswith(kind.root_marker):  # fsspec's memory loses it of a key with ::
            path = f"{kind.root_marker}{path}"
        return kind(**options), path
    except ImportError as error:
        extra = _EXTRAS.get(url.partition(URL_MARK)[0])
        hint = "install the package it names" if extra is None else install(extra)
        raise MissingPackage(str(error), where=url, hint=hint) from None
    except ValueError as error:
        raise UsageError(
            f"no such kind of URL: {error}",
            where=url,
            expected="s3://, gs://, hf://, https://, or another that fsspec knows",
        ) from None


# -- what is there -------------------------------------------------------------------------------


class StoredSource(NamedTuple):
    """A source in a store: where it is, its path below what was named, and if it is doubtful."""

    remote: Remote
    place: str
    doubtful: bool = False


def expanded(url: str, passed: Counter[str]) -> Iterator[StoredSource]:
    """Yield the sources that a URL names: of an object, a folder or a glob.

    Args:
        url: the URL.
        passed: is told how many files of folders are not models, by suffix.

    Raises:
        SourceError: nothing exists there, or the store does not answer.
        MissingPackage, UsageError: see `opened`.
    """
    system, path = opened(url)
    if is_page(url) and "*" not in url:  # a page is what its address says; nothing lists them
        yield single(url)
        return
    with errors(SourceError, url):
        entry = _entry(system, path)
        if entry is not None and entry["type"] != "directory":
            yield StoredSource(_remote(system, url, path, entry), name_of(url))
        elif entry is not None:
            yield from _folder(system, url, path, passed)
        elif glob.has_magic(path):
            yield from _globbed(system, url, path)
        elif _entry(system, f"{path}.index") is not None:  # a checkpoint: how its files begin
            yield StoredSource(Remote(url, system, path), name_of(url))
        else:
            raise SourceError("no such object", where=url, hint="check the URL")


def single(url: str) -> StoredSource:
    """Return an object that was named by itself, and is not looked up."""
    system, path = opened(url)
    return StoredSource(Remote(url, system, path), name_of(url))


def below(url: str, root: str) -> StoredSource:
    """Return an object of a list: it keeps its path below a URL, or outside it below its host."""
    place = single(url)
    text = url.partition("?")[0] if is_page(url) else url
    start = root.rstrip("/") + "/"
    short = text[len(start) :] if text.startswith(start) else text.partition(URL_MARK)[2]
    return place._replace(place=short.strip("/"))


def _entry(system: Any, path: str) -> Mapping[str, Any] | None:
    try:
        entry: Mapping[str, Any] = patiently(lambda: system.info(path))
    except FileNotFoundError:
        return None
    return entry


def _remote(system: Any, url: str, path: str, entry: Mapping[str, Any]) -> Remote:
    return Remote(url, system, path, _size(entry), etag_of(entry), is_listed=True)


def _size(entry: Mapping[str, Any]) -> int | None:
    size = entry.get("size")
    return size if isinstance(size, int) else None


def etag_of(entry: Mapping[str, Any]) -> str | None:
    """Return a store's ETag or hash of an object's content, if it has one."""
    for key in _ETAGS:
        value = entry.get(key)
        if value:
            return str(value).strip('"')
    return None


def _folder(system: Any, url: str, path: str, passed: Counter[str]) -> Iterator[StoredSource]:
    root = path.rstrip("/")
    entries = _listed(system, root)
    files = search(entries)
    if files.models == ["."]:
        yield StoredSource(Remote(url, system, path, is_folder=True), name_of(url))
        return
    passed.update(files.passed)
    for name in files.models:
        whole = f"{root}/{name}"
        address = f"{url.rstrip('/')}/{name}"
        if name in entries:
            yield StoredSource(
                _remote(system, address, whole, entries[name]), name, name in files.doubtful
            )
        else:  # a folder that is a model, or a checkpoint
            is_folder = any(other.startswith(f"{name}/") for other in entries)
            yield StoredSource(Remote(address, system, whole, is_folder=is_folder), name)


def _listed(system: Any, root: str) -> dict[str, Mapping[str, Any]]:
    """Return what is below a folder, by its path below it: one listing, whatever is there."""
    entries = patiently(lambda: system.find(root, detail=True))
    return {name[len(root) :].lstrip("/"): entry for name, entry in entries.items()}


def _globbed(system: Any, url: str, path: str) -> Iterator[StoredSource]:
    first = min(path.index(c) for c in "*?[" if c in path)
    root = path[:first].rpartition("/")[0]
    start = url[: len(url) - len(path)] if url.endswith(path) else None
    entries = patiently(lambda: system.glob(path, detail=True))
    if not entries:
        raise SourceError("no model there", where=url, hint="give objects or folders that exist")
    for name, entry in sorted(entries.items()):
        if entry["type"] != "directory":
            address = f"{start}{name}" if start is not None else system.unstrip_protocol(name)
            yield StoredSource(_remote(system, address, name, entry), name[len(root) :].lstrip("/"))


class Destinations:
    """What is in the output folder, by one listing, when it is first asked.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._system, path = opened(url)
        self._path = path.rstrip("/")
        self._entries: dict[str, Mapping[str, Any]] | None = None

    def at(self, place: str) -> Remote:
        """Return the place of a destination, and whether something is there."""
        if self._entries is None:
            with errors(DestinationError, self._url):
                try:
                    self._entries = _listed(self._system, self._path)
                except FileNotFoundError:
                    self._entries = {}
        entry = self._entries.get(place, {})
        path = f"{self._path}/{place}"
        return _remote(self._system, f"{self._url}/{place}", path, entry)


# -- bringing and sending ------------------------------------------------------------------------


def fetch(remote: Remote, destination: Path) -> None:
    """Copy an object to a file of this machine, within limits.

    Raises:
        SourceError: it is not there, or does not come.
        LimitExceeded: it is too large, or takes too long.
    """
    limits.DOWNLOAD_BYTES.check(remote.size or 0, remote.url, "the size of a download")
    with errors(SourceError, remote.url):
        patiently(lambda: _Download(remote, destination).run())


def fetch_folder(remote: Remote, destination: Path) -> None:
    """Copy everything below a folder."""
    with errors(SourceError, remote.url):
        entries = _listed(remote.system, remote.path.rstrip("/"))
    limits.DIRECTORY_FILES.check(len(entries), remote.url, "the number of files")
    for name, entry in entries.items():
        parts = name.split("/")
        if ".." in parts or "" in parts:
            raise SourceError("a key that is not a path", where=f"{remote.url}/{name}")
        path = destination.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = f"{remote.path.rstrip('/')}/{name}"
        fetch(_remote(remote.system, f"{remote.url.rstrip('/')}/{name}", whole, entry), path)


def names_that_begin(remote: Remote) -> list[str]:
    """Return the names in the folder of a place that begin with its name."""
    folder, _, start = remote.path.rpartition("/")
    with errors(SourceError, remote.url):
        entries = patiently(lambda: remote.system.ls(folder, detail=False))
    names = (str(entry).rpartition("/")[2] for entry in entries)
    return [name for name in names if name.startswith(start)]


class _Download:
    """A download of one object. It is given up when it is too large, too slow, or stops."""

    def __init__(self, remote: Remote, destination: Path) -> None:
        self._remote, self._destination = remote, destination
        self._bytes, self._moved = 0, time.monotonic()

    def run(self) -> None:
        """Wait until it is there.

        Raises:
            LimitExceeded: see above.
            Exception: whatever the store's package raises.
        """
        from concurrent.futures import Future, wait
        from threading import Thread

        done: Future[None] = Future()

        def work() -> None:
            try:
                self._get()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        start = self._moved
        Thread(target=work, daemon=True).start()
        while not wait([done], 1.0).done:
            now = time.monotonic()
            self._check(limits.DOWNLOAD_STALL_SECONDS, now - self._moved, "without a byte")
            self._check(limits.DOWNLOAD_SECONDS, now - start, "the time of a download")
        done.result()

    def _check(self, limit: limits.Limit, seconds: float, what: str) -> None:
        limit.check(int(seconds), self._remote.url, f"the seconds of a download: {what}")

    def _get(self) -> None:
        from fsspec.callbacks import Callback

        download = self

        class Count(Callback):  # type: ignore[misc]  # fsspec has no types
            def relative_update(self, inc: int = 1) -> None:
                download.moved(inc)

            def branched(self, *_: Any, **__: Any) -> Any:
                return self

        self._remote.system.get_file(self._remote.path, str(self._destination), callback=Count())

    def moved(self, count: int) -> None:
        """Note that bytes came."""
        self._bytes += count
        self._moved = time.monotonic()
        limits.DOWNLOAD_BYTES.check(self._bytes, self._remote.url, "the size of a download")


class DestinationAppeared(DestinationError):
    """An object is where a listing had none."""


def send(files: list[Path], remote: Remote, *, force: bool) -> tuple[FileIdentity, ...]:
    """Copy files to the folder of a place, the first one last, since it leads to the others.

    Returns:
        Their facts, in their order.

    Raises:
        DestinationAppeared: one is there, and `force` is off.
        DestinationError: the store does not take them. No bucket is created.
    """
    facts = {}
    with errors(DestinationError, remote.url):
        if force and len(files) > 1:  # an old first file is never beside a new second one
            with contextlib.suppress(FileNotFoundError):
                patiently(lambda: remote.system.rm_file(remote.path))
        for file in reversed(files):
            facts[file] = _sent(file, remote.sibling(file.name), force=force)
    return tuple(facts[file] for file in files)


def _sent(file: Path, remote: Remote, *, force: bool) -> FileIdentity:
    system = remote.system
    options = {} if force or not _can_create(system) else {"mode": "create"}

    def put() -> None:
        try:
            system.put_file(str(file), remote.path, **options)
        except FileNotFoundError:
            if not _make_folder(system, remote.path):
                raise
            system.put_file(str(file), remote.path, **options)

    try:
        patiently(put)
    except FileExistsError:
        raise DestinationAppeared(
            "the destination appeared meanwhile", where=remote.url, hint="--force replaces it"
        ) from None
    facts = facts_of(file)
    is_s3 = "s3" in system.protocol
    is_small = facts.size is not None and facts.size < _ONE_REQUEST
    return facts._replace(etag=_md5(file) if is_s3 and is_small else remote.looked_up().etag)


def facts_of(path: Path) -> FileIdentity:
    """Return the size and SHA-256 of a file of this machine, or the SHA-256 of a folder."""
    if path.is_dir():
        digest = opening.digest_of_files(path, opening.files_below(path))
        return FileIdentity(path.name, None, digest)
    source = opening.open_source(path)
    return FileIdentity(path.name, source.size, opening.digest_of_file(source))


def _md5(file: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(file, "rb") as stream:
        while piece := stream.read(limits.MIB):
            digest.update(piece)
    return digest.hexdigest()


def _can_create(system: Any) -> bool:
    """Whether a file system can put an object unless there is one: then the store itself looks."""
    put = getattr(system, "_put_file", system.put_file)
    return "mode" in inspect.signature(put).parameters


def _make_folder(system: Any, path: str) -> bool:
    """Make the folder of a path, unless its first part, which may be a bucket, is not there."""
    folder = path.rpartition("/")[0]
    first = "/" * path.startswith("/") + path.lstrip("/").partition("/")[0]
    if not folder or not system.exists(first):
        return False
    system.makedirs(folder, exist_ok=True)
    return True


def holds(remote: Remote, facts: FileIdentity, copy: Path | None = None) -> bool:
    """Whether an object has certain bytes. Only where no ETag tells is it fetched for that.

    Args:
        remote: the object.
        facts: of the bytes.
        copy: a file of this machine that has them, if there is one.
    """
    if not remote.is_listed:
        remote = remote.looked_up()
    if remote.size is None or (facts.size is not None and remote.size != facts.size):
        return False
    if remote.etag is not None and remote.etag == facts.etag:
        return True
    if copy is not None and remote.etag == _md5(copy):
        return True
    digest = hashlib.sha256()
    with (
        errors(SourceError, remote.url),
        patiently(lambda: remote.system.open(remote.path)) as file,
    ):
        while piece := file.read(limits.MIB):
            digest.update(piece)
    return digest.hexdigest() == facts.sha256


# -- what goes wrong -----------------------------------------------------------------------------


def patiently(work: Callable[[], T]) -> T:
    """Do something, and again after a while if the store is too busy for it.

    Raises:
        Exception: the error of the last try, or one that another try would not mend.
    """
    attempts = limits.STORE_ATTEMPTS.value
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except Exception as error:  # each store has errors of its own; what is to stay is raised
            if attempt == attempts or not may_pass(error):
                raise
            asked = _asked_wait(error)
            wait = min(2.0 ** (attempt - 1), _LONGEST_WAIT) * random.uniform(0.5, 1.0)  # noqa: S311
            time.sleep(wait if asked is None else min(asked, _LONGEST_WAIT))
    raise AssertionError


def may_pass(error: BaseException | None) -> bool:
    """Whether what went wrong may be right the next time: a busy store, a lost connection."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, (TimeoutError, ConnectionError)):
            return True
        if _status(error) in _TRANSIENT or type(error).__name__ in _PASSING:
            return True
        error = error.__cause__ or error.__context__
    return False


#: Classes of errors of other packages that mean that a connection was lost or took too long.
_PASSING = frozenset(
    {
        *(
            "FSTimeoutError",
            "ServerDisconnectedError",
            "ClientConnectorError",
            "ClientPayloadError",
        ),
        *("ClientOSError", "ServerTimeoutError", "EndpointConnectionError", "ConnectTimeoutError"),
        *("ReadTimeoutError", "ConnectError", "ReadTimeout", "RemoteProtocolError"),
    }
)


def _status(error: BaseException) -> int | None:
    """Return the status that a server answered with, wherever the package keeps it."""
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status", None),
        getattr(response, "status_code", None),
        _nested(response, "ResponseMetadata", "HTTPStatusCode"),
    ):
        if isinstance(value, int):
            return value
    return None


def _asked_wait(error: BaseException) -> float | None:
    """Return how many seconds a server asks to wait, if it does."""
    response = getattr(error, "response", None)
    headers = getattr(error, "headers", None) or getattr(response, "headers", None)
    headers = headers or _nested(response, "ResponseMetadata", "HTTPHeaders") or {}
    text = str(headers.get("Retry-After") or headers.get("retry-after") or "")
    return float(text) if text.isdecimal() else None


def _nested(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@contextlib.contextmanager
def errors(kind: type[SourceError] | type[DestinationError], where: str) -> Iterator[None]:
    """Turn what a file system raises into our error: each store has exceptions of its own."""
    try:
        yield
    except LSTMConvertError:
        raise
    except Exception as error:  # each store has exceptions of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise kind(reason, where=where) from error
