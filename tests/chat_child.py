"""A chat in a process of its own, to be killed: `chat_child.py HOME URL THREAD TARGET LINES...`."""

import sys
from pathlib import Path

from chat_support import Typist

from agent.chat.answers import Surroundings
from agent.chat.loop import converse
from agent.chat.model import Settings

if __name__ == "__main__":
    home, url, thread, target, *lines = sys.argv[1:]
    at = Surroundings(Path(home), target=target or None)
    converse(at, thread, Settings("scripted", url), Typist(*lines).terminal, limit_tokens=10**6)
