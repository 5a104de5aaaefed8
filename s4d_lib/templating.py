"""template, values → HTML     Jinja2 files that lie beside the code which fills them.

Every value is escaped where it is put in, and a name that nobody gave is an error, never a hole in the page.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(place: str, name: str, **values: Any) -> str:
    """The template `name` filled in; `place` is the package it lies in, or "package/folder".

    `as_it_is("page.css")` puts another file of the folder into the page, unread and unescaped; `| tojson` writes a
    value as JSON in which nothing can end a script element (ValueError for a nan). jinja2.UndefinedError for a name
    or an attribute that is not there, jinja2.TemplateNotFound for a file that is not.
    """
    return _environment(place).get_template(name).render(values)


@cache
def _environment(place: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    package, _, folder = place.partition("/")
    loader = PackageLoader(package, folder)
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.globals["as_it_is"] = lambda name: Markup(loader.get_source(environment, name)[0])
    return environment
