"""The asyncio client of a token broker."""
