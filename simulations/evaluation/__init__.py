"""How good the agent's own decisions are: an adversary as its advisor, and situations whose best decision is known."""
