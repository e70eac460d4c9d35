"""`adledger config`: the settings in force and where each came from."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import out, out_json, out_table
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.settings_layers import LoadedSettings


@options.deployment()
def config(
    given: options.Deployment,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Explain this setting only.")] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Print the settings in force and where each came from.

    Secrets are masked. With a NAME, explain that setting: what it does, its unit, and how to set it.

    \b
    Examples:
      adledger config
      adledger config batch_age_ms_max
      ADLEDGER_CLICKHOUSE=clickhouse://ads:secret@ch1:9440/?secure=1 adledger config --json
    """
    loaded = given.load()
    if name is not None:
        loaded = _only(loaded, name)
    rows = _rows(loaded)
    if as_json:
        out_json({row["name"]: {k: v for k, v in row.items() if k != "name"} for row in rows})
    elif name is None:
        out_table(
            ("setting", "value", "from"),
            [(r["name"], r["value"] if r["value"] is None else str(r["value"]), r["from"]) for r in rows],
        )
    else:
        _explain(rows[0])


def _only(loaded: "LoadedSettings", name: str) -> "LoadedSettings":
    from adledger.pipeline.settings_layers import LoadedSettings, nearest

    known = name.replace("-", "_")
    if known not in loaded.origins:
        raise UsageError(f"there is no setting named {name}", remedy=nearest(known, loaded.origins))
    return LoadedSettings(loaded.settings, {known: loaded.origins[known]})


def _rows(loaded: "LoadedSettings") -> list[dict[str, Any]]:
    from adledger.pipeline.settings import Settings

    rows = []
    for name, origin in loaded.origins.items():
        if name.startswith("kafka."):
            value = loaded.settings.kafka[name.removeprefix("kafka.")]
            about: dict[str, Any] = {"default": None, "description": "A Kafka client property."}
        else:
            setting = Settings.model_fields[name]
            value = getattr(loaded.settings, name)
            default = setting.get_default(call_default_factory=True)
            about = {"default": _shown(name, default), "description": setting.description}
        rows.append({"name": name, "value": _shown(name, value), "from": origin} | about)
    return rows


def _shown(name: str, value: object) -> int | str | None:
    from adledger.pipeline.settings_layers import masked

    return value if isinstance(value, int) or value is None else masked(name, value)


def _explain(row: dict[str, Any]) -> None:
    out(f"{row['name']} = {row['value']}   (from {row['from']}; default {row['default']})")
    out(f"  {row['description']}")
    if "." not in row["name"]:
        out(f"  Set it by --set {row['name']}=..., ADLEDGER_{row['name'].upper()}=..., or in adledger.toml.")
