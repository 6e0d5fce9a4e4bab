"""`lstmconvert guide`."""

from __future__ import annotations

import click

from lstmconvert.cli import options, output


@options.command(
    "Show a page of the guide, or without TOPIC the list of pages. On a terminal it is laid out; "
    "in a pipe it is Markdown. The topics schemas/… are the JSON Schemas of what --json prints.",
    "guide",
    "guide recipes",
    "guide schemas/inspect > inspect.schema.json",
)
@click.argument(
    "topic", metavar="[TOPIC]", required=False, shell_complete=options.completed("topics")
)
def command(topic: str | None) -> None:
    from lstmconvert import guide

    text = guide.text(topic)
    if topic is not None and topic.startswith("schemas/"):
        output.plain(text)
    else:
        output.markdown(text)
