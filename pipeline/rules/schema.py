"""The JSON Schema of a rule set's TOML, made from the rules: for editors, and for programs that write sets.

`python -m adledger.pipeline.rules.schema` prints schemas/rules.schema.json.
"""

from typing import Any

import orjson

from adledger.pipeline.rules.parse import GUARDRAIL_PARAMS, SHARES, TEXT_CHARACTERS_MAX
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, Param, Rule


def rules_schema() -> dict[str, Any]:
    """Return the schema, as JSON."""
    text = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARACTERS_MAX}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "adledger rule set",
        "type": "object",
        "additionalProperties": False,
        "required": ["author", "date", "reason"],
        "properties": {
            "author": {**text, "description": "who made the set"},
            "date": {"type": "string", "format": "date", "description": "when"},
            "reason": {**text, "description": "why"},
            "guardrail": _object({p.name: _whole(p) for p in GUARDRAIL_PARAMS}),
            "rules": _object({reason.name: _rule(rule) for reason, rule in RULES.items()}),
        },
    }


def _rule(rule: Rule) -> dict[str, Any]:
    modes = [m.value for m in Mode if not (rule.flag_only and m == Mode.ENFORCE)]
    percent = {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.0001}
    properties = {
        "mode": {"enum": modes, "default": rule.mode.value},
        **{p.name: _whole(p) for p in rule.params},
        **dict.fromkeys(SHARES, percent),
    }
    return {**_object(properties), "required": ["mode"], "description": rule.catches}


def _whole(param: Param) -> dict[str, Any]:
    return {
        "type": "integer",
        "minimum": param.least,
        "maximum": param.most,
        "default": param.default,
        "description": param.meaning,
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


if __name__ == "__main__":
    print(orjson.dumps(rules_schema(), option=orjson.OPT_INDENT_2).decode())  # noqa: T201
