"""`make observability`: writes the files that are generated."""

from docs.observability.files import generated

for path, text in generated().items():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
