"""Completes the commands that remedies name: the flags that named the deployment must be repeated."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adledger.pipeline.errors import AdledgerError

if TYPE_CHECKING:
    from adledger.pipeline.settings_layers import LoadedSettings

Flags = Mapping[str, str]
"""A command as remedies name it -> the flags to append."""

_OPTIONS = ("source", "clickhouse", "database", "group")
"""Settings that have their own option in the commands below; --set sets the others."""

_TOPICS = ("source", "topics", "rollups_topic", "log_time", "kafka")
_LANES = ("source", "clickhouse", "database", "group", "topics", "kafka")
_SETTINGS = {
    "adledger topics create": _TOPICS,
    "adledger topics check": _TOPICS,
    "adledger migrate": ("clickhouse", "database", "cluster"),
    "adledger lane status": _LANES,
    "adledger lane skip": _LANES,
    "adledger lane resolve": _LANES,
    "adledger lane repartition": _LANES,
}
"""The commands in remedies that use a deployment, and the settings that name it."""


def command_flags(loaded: "LoadedSettings", config_file: Path | None) -> Flags:
    """Return the flags that each command needs for the same deployment. Secrets are shown as ***."""
    from adledger.pipeline.settings_layers import masked

    values = {
        name: getattr(loaded.settings, name) for name in loaded.origins if not name.startswith("kafka.")
    }
    values |= {f"kafka.{name}": value for name, value in loaded.settings.kafka.items()}

    def flag(name: str) -> str:
        text = masked(name, values[name])
        return (
            f"--{name} {shlex.quote(text)}" if name in _OPTIONS else f"--set {shlex.quote(f'{name}={text}')}"
        )

    by_flag = [name for name, origin in loaded.origins.items() if origin.startswith("flag")]
    config = [f"--config {shlex.quote(str(config_file))}"] if config_file else []
    return {
        command: " ".join([*config, *(flag(n) for n in by_flag if n.partition(".")[0] in wanted)])
        for command, wanted in _SETTINGS.items()
    }


def complete(text: str, flags: Flags) -> str:
    """Return a text with the flags after each command that it names."""
    for command, given in flags.items():
        if given:
            text = text.replace(command, f"{command} {given}")
    return text


@contextmanager
def completed(flags: Flags) -> Iterator[None]:
    """Complete the commands in any AdledgerError that the block raises."""
    try:
        yield
    except AdledgerError as error:
        error.message, error.remedy = complete(error.message, flags), complete(error.remedy, flags)
        raise
