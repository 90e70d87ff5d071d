"""Files: append-only JSON lines, atomic writes, and models that registry packages carry."""
