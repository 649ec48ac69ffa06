"""Data sets. A configuration (a frozen dataclass such as `Figures` or `LSP`) opens to a `Store` in memory."""
