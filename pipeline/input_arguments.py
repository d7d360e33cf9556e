"""Command-line options of every command that reads an input, made from `InputOptions`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from foldcp.pipeline.inputs.input_options import InputOptions


def with_input_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes `options: InputOptions`, with an option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "options"
    ]
    kinds = get_type_hints(InputOptions)
    options = [_parameter(known, kinds[known.name]) for known in fields(InputOptions)]
    is_required = [parameter.default is inspect.Parameter.empty for parameter in own]
    num_required = sum(is_required)
    parameters = [*own[:num_required], *options, *own[num_required:]]

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        values = {known.name: arguments.pop(known.name) for known in fields(InputOptions)}
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        command(options=InputOptions(**values), **arguments)

    signature = inspect.Signature(parameters)
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    del with_options.__wrapped__  # typer would read the options of the command itself
    return with_options


def _parameter(known: Field[Any], kind: Any) -> inspect.Parameter:
    metadata = known.metadata
    names = (metadata["name"],) if metadata["name"] else ()
    info = typer.Option(
        *names,
        metavar=metadata["metavar"] or None,
        help=metadata["help"],
        min=0 if kind is int else None,
    )
    default = known.default
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]
        default = []
    if kind is bool:
        names = names or ("--" + known.name.replace("_", "-"),)
        info = typer.Option(*names, help=metadata["help"])
    return inspect.Parameter(
        known.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )
