"""WebShop: search, look, choose, buy. An engine for the published rules, the official reward, a catalogue."""

from armap_lite.envs.webshop.environment import WebShop
from armap_lite.envs.webshop.judge import WebShopJudge, reward

__all__ = ["WebShop", "WebShopJudge", "reward"]
