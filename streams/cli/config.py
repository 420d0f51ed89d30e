"""`credits config show`: the settings in force, and where each comes from."""

from __future__ import annotations

import os

import typer
from pydantic import SecretStr

from streams.cli.console import JsonFlag, load_settings, print_json, print_table

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    pass


@app.command()
def show(as_json: JsonFlag = False) -> None:
    """Every setting, its value, where it comes from and what it means. Secrets are not shown."""
    settings = load_settings()
    rows = []
    for name, field in type(settings).model_fields.items():
        variable = f"CREDITS_{name.upper()}"
        value = getattr(settings, name)
        if variable in {key.upper() for key in os.environ}:
            origin = "environment"
        else:
            origin = ".env" if name in settings.model_fields_set else "default"
        rows.append((variable, _shown(value), origin, field.description or ""))
    if as_json:
        print_json({row[0]: {"value": row[1], "origin": row[2], "description": row[3]} for row in rows})
        return
    print_table(
        ("variable", "value", "from", "meaning"), [(a, "–" if b is None or b == "" else b, c, d) for a, b, c, d in rows]
    )


def _shown(value: object) -> object:
    """A value without what is secret in it: the password of an address, too."""
    from streams.settings import HIDDEN, without_password

    if isinstance(value, SecretStr):
        return HIDDEN
    return without_password(value) if isinstance(value, str) else value
