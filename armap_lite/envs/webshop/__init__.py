"""WebShop: search, look, choose, buy. An engine for the published rules, the official reward, a catalogue."""

from __future__ import annotations

from armap_lite.envs.webshop.environment import WebShop
from armap_lite.envs.webshop.hindsight import price_paid
from armap_lite.envs.webshop.judge import WebShopJudge, reward

__all__ = ["WebShop", "WebShopJudge", "price_paid", "reward"]
