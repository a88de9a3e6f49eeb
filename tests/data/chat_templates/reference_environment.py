"""The environment in which transformers renders chat templates, from its documentation: Jinja's
immutable sandbox, trim_blocks, lstrip_blocks, break and continue, a `generation` tag, tojson by
json.dumps. Python 3.11, jinja2 3.1.6."""
import datetime
import json

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 5, 9, 3, 8, 120000)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


def render(template, variables):
    """What it prints, or that it is an error."""
    try:
        rendered = environment().from_string(template).render(**variables)
        rendered.encode()
        return {"rendered": rendered}
    except Exception as error:  # Whatever it is, ours must be an error too.
        return {"error": f"{type(error).__name__}: {error}"}
