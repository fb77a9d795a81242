"""Where tests find the scripted endpoint."""

from simulations.openai_server import Answer, OpenAIServer, calls, fails, says

__all__ = ["Answer", "OpenAIServer", "calls", "fails", "says"]
