"""Real faults, injected into real sessions, and a strict look at what was lost: `python -m simulations.chaos`."""
