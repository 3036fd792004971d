"""What hosted models cost: one table (``table.toml``), which the user's own prices override.

Both sides read it: the tools for what an edit or a judgement cost, the agent for what its policy's turns cost.
``ANOMALY_AGENT_PRICES`` names a TOML file of the same form whose entries win.
"""

from pricing.table import Price, PriceError, price_of

__all__ = ["Price", "PriceError", "price_of"]
