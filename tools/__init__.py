"""Everything with a real effect or real arithmetic; usable without the agent."""
