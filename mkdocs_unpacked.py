"""Options that a function takes as `**options: Unpack[SomeTypedDict]` stand in its signature, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffe import Attribute, Class, ExprSubscript, Extension, Function, Parameter, ParameterKind


class Unpacked(Extension):
    """Sets the signatures before anything asks for them."""

    def on_function(self, *, func: Function, **kwargs: Any) -> None:
        """A function was found."""
        for parameter in [*func.parameters]:
            annotation = parameter.annotation
            if isinstance(annotation, ExprSubscript) and annotation.canonical_name == "Unpack":
                options = func.modules_collection[_path(annotation.slice)]
                for option in _options(options):
                    func.parameters[option.name] = _parameter(option)


def _options(typed_dict: Class) -> Iterator[Attribute]:
    for base in typed_dict.resolved_bases:
        if isinstance(base, Class):
            yield from _options(base)
    yield from typed_dict.attributes.values()


def _parameter(option: Attribute) -> Parameter:
    kind = ParameterKind.keyword_only
    return Parameter(option.name, annotation=option.annotation, kind=kind, default="...")


def _path(expression: Any) -> str:
    """The full name of a type, without what it is subscribed with."""
    while isinstance(expression, ExprSubscript):
        expression = expression.left
    return str(expression.canonical_path)
