"""Dask and Ray as executors: they connect by an address, and tell how many workers they have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from lstmconvert import __version__
from lstmconvert.errors import DestinationError, MissingPackage, SourceError, UsageError, install

#: How long a connection, and then a first answer of a worker, is waited for, in seconds.
CONNECT_SECONDS = 60.0


class Dask(Executor):
    """A scheduler of Dask.

    Args:
        address: of the scheduler: `tcp://host:8786`.

    Raises:
        MissingPackage: `distributed` is not installed.
        UsageError: nobody answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingPackage(
                f"Dask is not installed: {error}", hint=install("dask")
            ) from None
        untyped: Any = distributed
        self._workers = 1
        try:
            self._client: Any = untyped.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no scheduler of Dask answers: {error}", where=address, hint="is it running?"
            ) from None

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker."""
        del kwargs  # nothing is named
        promised: Future[Any] = Future()
        sent = self._client.submit(function, *args, pure=False)

        def ended(answer: Any) -> None:
            if answer.status == "finished":
                try:
                    promised.set_result(answer.result())
                except BaseException as error:
                    promised.set_exception(error)
            elif answer.status == "error":
                promised.set_exception(answer.exception())
            else:  # cancelled, or the scheduler is gone
                promised.set_exception(ConnectionError(f"Dask has {answer.status} the task"))

        sent.add_done_callback(ended)
        promised.sent = sent  # type: ignore[attr-defined]  # Dask drops a task that nobody holds
        return promised

    def workers(self) -> int:
        """Return how many tasks run at once."""
        with contextlib.suppress(Exception):  # a scheduler that is gone; its tasks will tell
            self._workers = sum(self._client.nthreads().values())
        return max(1, self._workers)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the scheduler, which runs on."""
        del wait, cancel_futures
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.close()


class Ray(Executor):
    """A cluster of Ray.

    Args:
        address: `auto`, `host:6379`, `ray://host:10001`, or `local` for one on this machine.

    Raises:
        MissingPackage: Ray is not installed.
        UsageError: nobody answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPackage(
                f"Ray is not installed: {error}", hint=install("ray")
            ) from None
        self._ray: Any = ray
        try:
            if not ray.is_initialized():
                self._ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"no cluster of Ray answers: {error}", where=address, hint="is it running?"
            ) from None
        # A task that a worker died of is lost: it is tried again here, by itself.
        self._remote = self._ray.remote(max_retries=0)(_call)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function on a worker."""
        del kwargs  # nothing is named
        future: Future[Any] = self._remote.remote(function, args).future()
        return future

    def workers(self) -> int:
        """Return how many tasks run at once."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which runs on unless it is of this process."""
        del wait, cancel_futures
        self._ray.shutdown()


def _call(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    return function(*args)


# -- whether the workers can do it ---------------------------------------------------------------


class Sight(NamedTuple):
    """What a worker sees of this machine's paths.

    Fields: `version` of lstmconvert there, or None; `source`, `folder`: why the first source cannot
    be read there, and why nothing can be written to the output folder; or None.
    """

    version: str | None
    source: str | None
    folder: str | None


#: The question to a worker. It is a text, since a worker without this package cannot be sent a
#: function of it; it holds nothing but names of the standard library.
_QUESTION = """(lambda os, util, source, nonce: (
    __import__("lstmconvert").__version__ if util.find_spec("lstmconvert") else None,
    None if source is None or os.path.lexists(source) else "it is not there",
    None if nonce is None or os.path.exists(nonce) else "a file that was just made is not there",
))(__import__("os"), __import__("importlib.util").util, {source!r}, {nonce!r})"""


def probe(executor: Executor, source: str | None, folder: str | None) -> None:
    """Ask a worker, once, whether it can do the tasks that it will be sent.

    Args:
        executor: of the workers.
        source: a source that it must see, a path; None if sources are in stores.
        folder: the output folder, which is there; None if that is in a store.

    Raises:
        UsageError: no worker answers, or it lacks this package, or has another version.
        SourceError: it does not see the source.
        DestinationError: it does not see the folder.
    """
    nonce = None
    if folder is not None:
        nonce = os.path.join(folder, f".lstmconvert-probe-{os.urandom(8).hex()}")
        with open(nonce, "wb"):
            pass
    try:
        text = _QUESTION.format(source=source, nonce=nonce)
        future = executor.submit(eval, text)  # the text is ours, never a user's or a file's
        sight = Sight(*_answer(future))
    finally:
        if nonce is not None:
            os.unlink(nonce)
    _judge(sight, source, folder)


def _answer(future: Future[Any]) -> Iterable[Any]:
    from concurrent.futures import TimeoutError as Late

    try:
        answer: Iterable[Any] = future.result(timeout=CONNECT_SECONDS)
    except Late:
        raise UsageError(
            f"no worker has answered within {CONNECT_SECONDS:.0f} seconds",
            hint="are there workers, and do they reach the scheduler?",
        ) from None
    except Exception as error:  # whatever the engine or its worker raises
        words = " ".join(str(error).split())[:300]
        raise UsageError(
            f"a worker cannot be asked: {type(error).__name__}: {words}",
            hint="the workers need the same Python, and the package lstmconvert",
        ) from None
    return answer


def _judge(sight: Sight, source: str | None, folder: str | None) -> None:
    if sight.version is None:
        raise UsageError(
            "the workers have no package lstmconvert",
            hint=f"pip install lstmconvert=={__version__} on every worker",
        )
    if sight.version != __version__:
        raise UsageError(
            "the workers have another version of lstmconvert",
            found=sight.version,
            expected=__version__,
            hint=f"pip install lstmconvert=={__version__} on every worker",
        )
    hint = "the workers must see the same disk; or give URLs"
    if sight.source is not None:
        raise SourceError(f"a worker does not see it: {sight.source}", where=source, hint=hint)
    if sight.folder is not None:
        raise DestinationError(f"a worker does not see it: {sight.folder}", where=folder, hint=hint)


def chosen(addresses: Mapping[str, str | None]) -> Executor | None:
    """Return the engine that the user names an address of, if there is one.

    Raises:
        UsageError: there are several, or nobody answers.
    """
    given = {name: address for name, address in addresses.items() if address is not None}
    if len(given) > 1:
        raise UsageError("--dask and --ray: one engine at a time", expected="one of them")
    for name, address in given.items():
        return (Dask if name == "dask" else Ray)(address)
    return None
